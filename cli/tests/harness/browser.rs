//! Loading a page in headless Chromium, as a reader does.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a browser made of a page.
pub(crate) struct Loaded {
    /// The page after its scripts have run.
    pub(crate) dom: String,
    /// What was written to the console, errors among it.
    pub(crate) console: Vec<String>,
}

/// Loads a file, or says on standard error that there is no browser and gives nothing.
///
/// # Panics
/// If the browser fails, or takes more than a minute.
pub(crate) fn load(page: &Path) -> Option<Loaded> {
    let Some(browser) =
        ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| exists(name))
    else {
        eprintln!("skipped: no Chromium to load {} in", page.display());
        return None;
    };
    let profile = tempfile::tempdir().expect("a temporary directory");
    let [dom, log] = ["dom", "log"].map(|name| profile.path().join(name));
    let write = |path| std::fs::File::create(path).expect("a temporary file");
    let mut child = Command::new(browser)
        // The sandbox does not run as root, which containers do; the page is our own.
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
        ])
        .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(write(&dom))
        .stderr(write(&log))
        .spawn()
        .expect("the browser starts");
    let started = Instant::now();
    let status = loop {
        match child.try_wait().expect("the browser can be waited for") {
            Some(status) => break status,
            None if started.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the browser does not end");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let read = |path| String::from_utf8_lossy(&std::fs::read(path).expect("it was written")).into_owned();
    let log = read(&log);
    assert!(status.success(), "the browser fails: {log}");
    let console = log.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    Some(Loaded { dom: read(&dom), console })
}

fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).exists()))
}

const PATIENCE: Duration = Duration::from_secs(60);
