//! stub
/// e
#[derive(Debug)]
pub struct DemoError;
impl std::fmt::Display for DemoError { fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) } }
/// r
/// # Errors
/// none
pub async fn run(_keep: bool) -> Result<(), DemoError> { Ok(()) }
