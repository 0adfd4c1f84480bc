//! A configuration file: settings, or sentences that say where and what.

#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;

use vouchsafe::config::{
    args::{Options, RunArgs, UpstreamOptions},
    environment::Environment,
    file,
    settings::Settings,
    watch::Files,
};
use vouchsafe_fuzz::is_plain;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let options = match file::parse(text) {
        Ok(options) => options,
        Err(problems) => return is_placed(text, &problems),
    };
    let args = RunArgs { options: without_files(options), ..RunArgs::default() };
    match Settings::of(args, &Environment::default(), &mut Files::default()) {
        Ok(settings) => {
            assert!(!settings.listeners.is_empty());
            assert!((1..=1024).contains(&settings.threads));
            settings.warnings.iter().flat_map(|warning| warning.split('\n')).for_each(is_plain);
            let mut addresses: Vec<_> =
                settings.listeners.iter().filter_map(|listener| listener.address.tcp()).collect();
            addresses.retain(|address| address.port() != 0);
            addresses.sort();
            assert!(addresses.windows(2).all(|two| two[0] != two[1]), "{addresses:?}");
        }
        Err(error) => error.to_string().split('\n').for_each(is_plain),
    }
});

/// Every problem begins with a line of the file.
fn is_placed(text: &str, problems: &[String]) {
    assert!(!problems.is_empty());
    for problem in problems {
        let line = problem.split(':').next().and_then(|line| line.parse::<usize>().ok());
        let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
        assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{problem}");
        problem.split('\n').for_each(is_plain);
    }
}

/// What a file names is not read: only the bundle, which is always the same.
fn without_files(options: Options) -> Options {
    let upstream = options.upstream.into_iter().map(|upstream| UpstreamOptions {
        ca_bundle: Vec::new(),
        crl: Vec::new(),
        identity: Vec::new(),
        client_cert: None,
        client_key: None,
        system_roots: None,
        ..upstream
    });
    Options {
        upstream: upstream.collect(),
        ca_bundle: vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/gallery/bundle-plus.pem"))],
        crl: Vec::new(),
        client_cert: None,
        client_key: None,
        system_roots: None,
        ..options
    }
}
