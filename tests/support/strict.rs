//! A strict reader of HTTP/1.1 messages that shares nothing with the program: what it was not told to allow, it
//! reports. Both ends of the property tests and of the soak read by it, so that a byte in the wrong place shows.
//!
//! With it, what such tests are made of: random numbers from a seed, and bodies that are known by a key.

use std::{fmt, sync::LazyLock};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Random numbers that are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins anew at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.any() % end as u64) as usize
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A body known by a key: the same key gives the same bytes, another one others.
#[derive(Clone, Debug)]
pub struct Pattern {
    at: usize,
    /// Whether all that was compared so far is right.
    pub right: bool,
    /// How much was compared.
    pub length: u64,
}

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random::new(1);
    // Prime, so that keys hardly share a place; no byte that a head is made of.
    (0..65_521).map(|_| b'A' + (random.any() % 26) as u8).collect()
});

impl Pattern {
    /// The body of a key.
    pub fn new(key: u64) -> Self {
        let mut random = Random::new(key);
        Self { at: random.below(TABLE.len()), right: true, length: 0 }
    }

    /// The next bytes of it.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let part = (length - bytes.len()).min(TABLE.len() - self.at);
            bytes.extend_from_slice(&TABLE[self.at..self.at + part]);
            self.at = (self.at + part) % TABLE.len();
        }
        bytes
    }

    /// Compares the next bytes.
    pub fn compare(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let part = bytes.len().min(TABLE.len() - self.at);
            self.right &= bytes[..part] == TABLE[self.at..self.at + part];
            self.at = (self.at + part) % TABLE.len();
            bytes = &bytes[part..];
        }
    }
}

/// Why there is no whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The connection ended, in these words: `FIN`, `RST`.
    End(String),
    /// A rule was broken.
    Rule(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End(how) => write!(f, "it ended by {how}"),
            Self::Rule(why) => f.write_str(why),
        }
    }
}

/// The head of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The three parts of its first line.
    pub line: [String; 3],
    /// The fields, in order.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// The only value of a field; None where there is none.
    ///
    /// # Errors
    /// Where there is more than one.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Broken> {
        let mut values = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (first, None) => Ok(first.map(|(_, value)| value.as_str())),
            (_, Some(_)) => Err(Broken::Rule(format!("two fields `{name}` in {self:?}"))),
        }
    }

    /// The status of a response; 0 where that is no number.
    pub fn status(&self) -> u16 {
        self.line[1].parse().unwrap_or(0)
    }
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// With a last chunk.
    Chunked,
    /// After so many bytes.
    Length(u64),
    /// With the connection.
    Close,
}

/// A connection that messages are read from.
#[derive(Debug)]
pub struct Reader<S> {
    /// The connection.
    pub stream: S,
    buffer: Vec<u8>,
    at: usize,
    /// Bytes taken from the connection at once.
    pub gulp: usize,
}

const MOST_HEAD: usize = 1 << 20;

impl<S: AsyncRead + Unpin> Reader<S> {
    /// Nothing was read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), at: 0, gulp: 32 << 10 }
    }

    /// What was read and not used.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    async fn more(&mut self) -> Result<(), Broken> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        let before = self.buffer.len();
        self.buffer.resize(before + self.gulp, 0);
        let end = self.stream.read(&mut self.buffer[before..]).await;
        self.buffer.truncate(before + *end.as_ref().unwrap_or(&0));
        match end {
            Ok(0) => Err(Broken::End("FIN".into())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(Broken::End("FIN inside TLS".into()))
            }
            Err(_) => Err(Broken::End("RST".into())),
        }
    }

    /// A line without its CRLF.
    async fn line(&mut self, what: &str) -> Result<String, Broken> {
        let mut looked = self.at;
        loop {
            if let Some(lf) = self.buffer[looked..].iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[self.at..looked + lf];
                let Some(line) = line.strip_suffix(b"\r") else {
                    return Err(rule(what, "a bare LF", line));
                };
                if line.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
                    return Err(rule(what, "a control character", line));
                }
                let line = String::from_utf8_lossy(line).into_owned();
                self.at = looked + lf + 1;
                return Ok(line);
            }
            if self.buffer.len() - self.at > MOST_HEAD {
                return Err(rule(what, "a line without an end", &self.buffer[self.at..self.at + 100]));
            }
            let ahead = self.buffer.len() - self.at;
            self.more().await?;
            looked = self.at + ahead;
        }
    }

    async fn fields(&mut self) -> Result<Vec<(String, String)>, Broken> {
        let mut fields = Vec::new();
        loop {
            let line = self.line("a field").await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(rule("a field", "no colon", line.as_bytes()));
            };
            if !is_token(name) {
                return Err(rule("a field", "no name", line.as_bytes()));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    async fn head(&mut self) -> Result<Head, Broken> {
        let line = self.line("a first line").await?;
        let mut parts = line.splitn(3, ' ').map(str::to_owned);
        let line = [(); 3].map(|()| parts.next().unwrap_or_default());
        Ok(Head { line, fields: self.fields().await? })
    }

    /// The head of a request and where its body ends; None at a clean end between requests.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn request(&mut self) -> Result<Option<(Head, Framing)>, Broken> {
        if self.rest().is_empty() {
            match self.more().await {
                Err(Broken::End(_)) => return Ok(None),
                end => end?,
            }
        }
        let head = self.head().await?;
        let [method, target, version] = &head.line;
        let plain = target.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_token(method) || version != "HTTP/1.1" || !plain || !(target.starts_with('/') || target == "*") {
            return Err(Broken::Rule(format!("not a request line: {:?}", head.line)));
        }
        let framing = framing(&head)?.unwrap_or(Framing::Length(0));
        Ok(Some((head, framing)))
    }

    /// The head of a response to this method, interim or not, and where its body ends. To HTTP/1.0 a server may
    /// answer in that version.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn response(&mut self, method: &str) -> Result<(Head, Framing), Broken> {
        let head = self.head().await?;
        let [version, status, _] = &head.line;
        if !["HTTP/1.0", "HTTP/1.1"].contains(&version.as_str())
            || status.len() != 3
            || !(100..600).contains(&head.status())
        {
            return Err(Broken::Rule(format!("not a status line: {:?}", head.line)));
        }
        let said = framing(&head)?;
        let framing = match head.status() {
            100..200 | 204 if said.is_some() => {
                return Err(Broken::Rule(format!("a body's length where there is no body: {head:?}")));
            }
            100..200 | 204 | 304 => Framing::Length(0),
            _ if method == "HEAD" => Framing::Length(0),
            _ => said.unwrap_or(Framing::Close),
        };
        Ok((head, framing))
    }

    /// Reads a body to its end, gives it to `each` part by part, and what trailers it has.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn body(
        &mut self,
        framing: Framing,
        mut each: impl FnMut(&[u8]),
    ) -> Result<Vec<(String, String)>, Broken> {
        match framing {
            Framing::Length(length) => self.counted(length, &mut each).await?,
            Framing::Close => loop {
                each(&self.buffer[self.at..]);
                self.at = self.buffer.len();
                match self.more().await {
                    Err(Broken::End(how)) if how == "FIN" => break,
                    end => end?,
                }
            },
            Framing::Chunked => loop {
                let line = self.line("a chunk").await?;
                // Extensions pass as they came.
                let line = line.split(';').next().unwrap_or_default();
                let digits = !line.is_empty() && line.len() <= 15 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
                let Some(size) = digits.then(|| u64::from_str_radix(line, 16).ok()).flatten() else {
                    return Err(rule("a chunk", "no plain size", line.as_bytes()));
                };
                if size == 0 {
                    return self.fields().await;
                }
                self.counted(size, &mut each).await?;
                let end = self.line("the end of a chunk").await?;
                if !end.is_empty() {
                    return Err(rule("a chunk", "no end where it should be", end.as_bytes()));
                }
            },
        }
        Ok(Vec::new())
    }

    async fn counted(&mut self, mut left: u64, each: &mut impl FnMut(&[u8])) -> Result<(), Broken> {
        while left > 0 {
            if self.rest().is_empty() {
                self.more().await?;
            }
            let part = self.rest().len().min(usize::try_from(left).unwrap_or(usize::MAX));
            each(&self.buffer[self.at..self.at + part]);
            self.at += part;
            left -= part as u64;
        }
        Ok(())
    }

    /// Waits for the end of the connection, and says how it came.
    ///
    /// # Errors
    /// [`Broken::Rule`] where something else came.
    pub async fn end(&mut self) -> Result<String, Broken> {
        if self.rest().is_empty() {
            match self.more().await {
                Err(Broken::End(how)) => return Ok(how),
                end => end?,
            }
        }
        Err(rule("the end", "more bytes", &self.rest()[..self.rest().len().min(200)]))
    }
}

fn framing(head: &Head) -> Result<Option<Framing>, Broken> {
    Ok(match (head.one("Content-Length")?, head.one("Transfer-Encoding")?) {
        (None, None) => None,
        (Some(length), None) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length = length.parse().map_err(|_| Broken::Rule(format!("a length of {length}")))?;
            Some(Framing::Length(length))
        }
        (None, Some("chunked")) => Some(Framing::Chunked),
        _ => return Err(Broken::Rule(format!("no one framing: {head:?}"))),
    })
}

fn is_token(text: &str) -> bool {
    let is = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is)
}

fn rule(what: &str, why: &str, bytes: &[u8]) -> Broken {
    Broken::Rule(format!("{what}: {why}: {:?}", String::from_utf8_lossy(bytes)))
}
