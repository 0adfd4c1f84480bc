//! Changes DER without breaking its lengths: a byte more in the middle would else end the reading at the
//! next outer length, and nothing behind it would ever be reached.

use libfuzzer_sys::fuzzer_mutate;

/// Changes one thing somewhere within; None where this is not DER, or would become longer than `most`.
pub fn change(der: &[u8], dice: &mut Dice, most: usize) -> Option<Vec<u8>> {
    let mut nodes = parse(der, 0)?;
    let count = nodes.iter().map(Node::count).sum();
    let donor = nth(&nodes, &mut dice.below(count))?.clone();
    let mut place = dice.below(count);
    act(&mut nodes, &mut place, &mut |nodes, i| match dice.below(8) {
        0 => drop(nodes.remove(i)),
        1 => {
            let times = 1 << dice.below(12);
            let node = nodes[i].clone();
            let times = times.min(most / (node.size() + 2));
            nodes.splice(i..i, std::iter::repeat_n(node, times));
        }
        2 => nodes[i] = donor.clone(),
        3 => nodes.insert(i, donor.clone()),
        4 => nodes.rotate_left(i),
        5 => nodes[i].tag = TAGS[dice.below(TAGS.len())],
        _ => nodes[i].rewrite(),
    });
    let mut changed = Vec::with_capacity(der.len());
    nodes.iter().for_each(|node| node.write(&mut changed));
    (changed.len() <= most).then_some(changed)
}

/// Numbers that follow from libFuzzer's seed (xorshift).
pub struct Dice(u32);

impl Dice {
    /// From a seed.
    pub fn new(seed: u32) -> Self {
        Self(seed | 1)
    }

    /// A number below `count`; 0 where there is none.
    pub fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % count.max(1)
    }
}

#[derive(Clone)]
struct Node {
    tag: u8,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Bytes(Vec<u8>),
    Nodes(Vec<Node>),
}

impl Node {
    fn count(&self) -> usize {
        match &self.content {
            Content::Bytes(_) => 1,
            Content::Nodes(nodes) => 1 + nodes.iter().map(Self::count).sum::<usize>(),
        }
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() + 2,
            Content::Nodes(nodes) => 2 + nodes.iter().map(Self::size).sum::<usize>(),
        }
    }

    /// Lets libFuzzer change the content.
    fn rewrite(&mut self) {
        let mut bytes = Vec::new();
        match &self.content {
            Content::Bytes(content) => bytes.extend(content),
            Content::Nodes(nodes) => nodes.iter().for_each(|node| node.write(&mut bytes)),
        }
        let size = bytes.len();
        bytes.resize(size + 64, 0);
        let most = bytes.len();
        let size = fuzzer_mutate(&mut bytes, size, most);
        bytes.truncate(size);
        self.content = Content::Bytes(bytes);
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut content = Vec::new();
        match &self.content {
            Content::Bytes(bytes) => content.extend(bytes),
            Content::Nodes(nodes) => nodes.iter().for_each(|node| node.write(&mut content)),
        }
        out.push(self.tag);
        let length = content.len();
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => out.push(short),
            _ => {
                let bytes = length.to_be_bytes();
                let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
                out.push(0x80 | bytes.len() as u8);
                out.extend(bytes);
            }
        }
        out.extend(content);
    }
}

/// Constructed values are taken apart, and octet strings that hold DER, as extensions do.
fn parse(mut rest: &[u8], depth: usize) -> Option<Vec<Node>> {
    let mut nodes = Vec::new();
    while let [tag, lead, behind @ ..] = rest {
        let (length, behind) = match lead {
            0..=0x7f => (usize::from(*lead), behind),
            0x81 => behind.split_first().map(|(length, behind)| (usize::from(*length), behind))?,
            0x82 => behind.split_first_chunk().map(|(l, behind)| (usize::from(u16::from_be_bytes(*l)), behind))?,
            _ => return None,
        };
        let (content, behind) = behind.split_at_checked(length)?;
        let nested = (tag & 0x20 != 0 || *tag == 0x04) && depth < 24;
        let within = if nested { parse(content, depth + 1) } else { None };
        let content = match within.filter(|nodes| !nodes.is_empty()) {
            Some(nodes) => Content::Nodes(nodes),
            None => Content::Bytes(content.into()),
        };
        nodes.push(Node { tag: *tag, content });
        rest = behind;
    }
    rest.is_empty().then_some(nodes)
}

fn nth<'a>(nodes: &'a [Node], place: &mut usize) -> Option<&'a Node> {
    for node in nodes {
        if *place == 0 {
            return Some(node);
        }
        *place -= 1;
        if let Content::Nodes(nodes) = &node.content
            && let Some(found) = nth(nodes, place)
        {
            return Some(found);
        }
    }
    None
}

fn act(nodes: &mut Vec<Node>, place: &mut usize, action: &mut dyn FnMut(&mut Vec<Node>, usize)) -> bool {
    for i in 0..nodes.len() {
        if *place == 0 {
            action(nodes, i);
            return true;
        }
        *place -= 1;
        if let Content::Nodes(nodes) = &mut nodes[i].content
            && act(nodes, place, action)
        {
            return true;
        }
    }
    false
}

/// Those of certificates: universal ones, and the context's.
const TAGS: [u8; 24] = [
    0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0a, 0x0c, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1c, 0x1e, 0x30, 0x31, 0x80, 0x81,
    0x82, 0x86, 0x87, 0xa0, 0xa3,
];
