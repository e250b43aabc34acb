//! What the tests install for themselves: Debian's kcat, a Python environment, Java's jars and classes.
//!
//! Each is installed at most once in a run, however many tests ask, and reused by later runs: a marker written
//! last says that it is complete and from what it was made. A file lock keeps other processes out meanwhile.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use super::skip::{Absent, Unavailable};

/// What pip, apt and Maven say when they cannot reach the place where packages come from.
const REGISTRY_IS_AWAY: &[&str] = &[
    "Temporary failure",
    "Could not resolve",
    "Could not connect",
    "Unable to connect",
    "Failed to establish a new connection",
    "Max retries exceeded",
    "Could not transfer artifact",
    "Unknown host",
    "Network is unreachable",
    "No matching distribution found",
    "Unable to locate package",
    "has no installation candidate",
];

/// The kcat of the distribution.
pub(crate) fn kcat() -> Result<&'static Path, Unavailable> {
    static KCAT: OnceLock<Result<PathBuf, Unavailable>> = OnceLock::new();
    borrowed(KCAT.get_or_init(install_kcat))
}

/// The Python interpreter of an environment that has what `interop/python/requirements.txt` names.
pub(crate) fn python() -> Result<&'static Path, Unavailable> {
    static PYTHON: OnceLock<Result<PathBuf, Unavailable>> = OnceLock::new();
    borrowed(PYTHON.get_or_init(install_python))
}

/// The directory of the jars of Kafka's client and server.
pub(crate) fn jars() -> Result<&'static Path, Unavailable> {
    static JARS: OnceLock<Result<PathBuf, Unavailable>> = OnceLock::new();
    borrowed(JARS.get_or_init(install_jars))
}

/// The class path of our Java programs: their compiled classes and the jars.
fn java_class_path() -> Result<&'static Path, Unavailable> {
    static CLASSES: OnceLock<Result<PathBuf, Unavailable>> = OnceLock::new();
    borrowed(CLASSES.get_or_init(compile_java))
}

/// One of our Java programs: a client of one test needs neither many threads nor a large heap.
pub(crate) fn java(main: &str) -> Result<Command, Unavailable> {
    let class_path = java_class_path()?;
    let mut command = Command::new(program("java")?);
    command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-Xshare:auto"]);
    command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
    command.arg("-cp").arg(class_path).arg(main);
    Ok(command)
}

/// The driver of Kafka's Java client.
pub(crate) fn java_driver() -> Result<Command, Unavailable> {
    java("Driver")
}

/// A driver in Go, built from the command `name` of `interop/go`.
pub(crate) fn go_driver(name: &str) -> Result<Command, Unavailable> {
    Err(Unavailable::Broken(format!("interop/go/{name} is not built yet")))
}

/// A driver in Python: the script `name` of `interop/python`.
pub(crate) fn python_driver(name: &str) -> Result<Command, Unavailable> {
    let mut command = Command::new(python()?);
    // Compiled files would lie among the sources.
    command.arg("-B").arg(tests_dir().join("interop/python").join(name));
    Ok(command)
}

/// The driver of kcat, which is a script around it.
pub(crate) fn kcat_driver() -> Result<Command, Unavailable> {
    kcat()?;
    python_driver("kcat_driver.py")
}

/// A driver in JavaScript: the script `name` of `interop/node`.
pub(crate) fn node_driver(name: &str) -> Result<Command, Unavailable> {
    Err(Unavailable::Broken(format!("interop/node/{name} is not built yet")))
}

/// A program of the system by name; a reason to skip if it is not installed.
pub(crate) fn program(name: &str) -> Result<PathBuf, Unavailable> {
    find(name).ok_or_else(|| Absent::Toolchain(format!("{name} is not installed")).into())
}

/// A program by name, from Debian's `package` if it is not installed.
pub(crate) fn debian(name: &str, package: &str) -> Result<PathBuf, Unavailable> {
    if let Some(found) = find(name) {
        return Ok(found);
    }
    let apt = program("apt-get")?;
    if !rustix::process::geteuid().is_root() {
        return Err(Absent::Root(format!("{name} is not installed, and apt-get wants root")).into());
    }
    let _lock = lock("apt")?;
    // Package lists may be old or absent; if they cannot be renewed, the installation says why.
    let _ = run(Command::new(&apt).arg("update"));
    let mut install = Command::new(&apt);
    install.args(["install", "--yes", "--no-install-recommends", package]);
    checked(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    program(name)
}

/// Debian's `packages` with what they need and the system lacks, as files below the folder that is returned.
///
/// They are unpacked and not installed: the packages of two syslog daemons exclude each other and the one that the
/// system runs, and none of this is the system's business.
pub(crate) fn unpacked(name: &str, packages: &[&str]) -> Result<PathBuf, Unavailable> {
    let folder = tests_dir().join(".debian").join(name);
    let wanted = packages.join(" ");
    let (apt, dpkg) = (program("apt-get")?, program("dpkg-deb")?);
    let _lock = lock("apt")?;
    if is_complete(&folder, &wanted) {
        return Ok(folder);
    }
    let archives = folder.join("archives");
    fs::create_dir_all(archives.join("partial")).map_err(broken("make a folder for packages"))?;
    // Only root may renew the package lists; if they cannot be, the download says why.
    let _ = run(Command::new(&apt).arg("update"));
    let mut download = Command::new(&apt);
    // What is installed already is fetched as well, and no lock of the system is taken for it.
    download.args(["install", "--yes", "--no-install-recommends", "--reinstall", "--download-only"]);
    download.args(["-o", "Debug::NoLocking=true", "-o"]);
    download.arg(format!("Dir::Cache::archives={}/", archives.display())).args(packages);
    checked(&mut download)?;
    for file in fs::read_dir(&archives).map_err(broken("list packages"))? {
        let file = file.map_err(broken("list packages"))?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            checked(Command::new(&dpkg).arg("--extract").arg(file).arg(&folder))?;
        }
    }
    complete(&folder, &wanted)?;
    Ok(folder)
}

/// The folder of the tests in the sources.
pub(crate) fn tests_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // What root runs may lie where the PATH of others does not lead.
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places.map(|directory| directory.join(name)).find(|file| file.is_file())
}

fn borrowed(installed: &'static Result<PathBuf, Unavailable>) -> Result<&'static Path, Unavailable> {
    installed.as_deref().map_err(Clone::clone)
}

fn install_kcat() -> Result<PathBuf, Unavailable> {
    debian("kcat", "kcat")
}

fn install_python() -> Result<PathBuf, Unavailable> {
    let environment = tests_dir().join(".venv");
    let interpreter = environment.join("bin/python");
    let requirements = tests_dir().join("interop/python/requirements.txt");
    let wanted = fs::read_to_string(&requirements).map_err(broken("read the requirements"))?;
    let _lock = lock("python")?;
    if is_complete(&environment, &wanted) {
        return Ok(interpreter);
    }
    let mut create = Command::new(program("python3")?);
    let created = run(create.args(["-m", "venv", "--clear"]).arg(&environment))?;
    if text(&created).contains("ensurepip is not available") {
        return Err(Absent::Toolchain("python3 has no venv".to_owned()).into());
    }
    check(&create, &created)?;
    let mut install = Command::new(&interpreter);
    install.args(["-m", "pip", "install", "--quiet", "--only-binary=:all:", "--requirement"]);
    checked(install.arg(&requirements))?;
    complete(&environment, &wanted)?;
    Ok(interpreter)
}

fn install_jars() -> Result<PathBuf, Unavailable> {
    let jars = tests_dir().join(".jars");
    let pom = tests_dir().join("interop/java/pom.xml");
    let wanted = fs::read_to_string(&pom).map_err(broken("read the pom"))?;
    let _lock = lock("jars")?;
    if is_complete(&jars, &wanted) {
        return Ok(jars);
    }
    let maven = program("mvn")?;
    if jars.exists() {
        fs::remove_dir_all(&jars).map_err(broken("remove old jars"))?;
    }
    let mut copy = Command::new(maven);
    copy.args(["--quiet", "--batch-mode", "--file"]).arg(&pom).arg("dependency:copy-dependencies");
    copy.arg("-DincludeScope=runtime").arg(format!("-DoutputDirectory={}", jars.display()));
    checked(&mut copy)?;
    complete(&jars, &wanted)?;
    Ok(jars)
}

fn compile_java() -> Result<PathBuf, Unavailable> {
    let jars = jars()?;
    program("java")?;
    let classes = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-java");
    let sources = tests_dir().join("interop/java");
    let class_path = format!("{}:{}/*", classes.display(), jars.display());
    let _lock = lock("classes")?;
    let mut compile = Command::new(program("javac")?);
    compile.arg("-d").arg(&classes).arg("-cp").arg(&class_path).arg("-Xlint:none");
    for program in ["InteropClient.java", "Driver.java", "DriverAdmin.java", "Tools.java"] {
        compile.arg(sources.join(program));
    }
    checked(&mut compile)?;
    Ok(class_path.into())
}

fn marker(directory: &Path) -> PathBuf {
    directory.join("complete")
}

fn is_complete(directory: &Path, made_from: &str) -> bool {
    fs::read_to_string(marker(directory)).is_ok_and(|text| text == made_from)
}

fn complete(directory: &Path, made_from: &str) -> Result<(), Unavailable> {
    fs::write(marker(directory), made_from).map_err(broken("write the marker of an installation"))
}

/// Held until dropped.
fn lock(name: &str) -> Result<File, Unavailable> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.lock"));
    let file = File::create(path).map_err(broken("create a lock file"))?;
    file.lock().map_err(broken("lock an installation"))?;
    Ok(file)
}

fn checked(command: &mut Command) -> Result<(), Unavailable> {
    let output = run(command)?;
    check(command, &output)
}

fn run(command: &mut Command) -> Result<Output, Unavailable> {
    command.stdin(Stdio::null()).output().map_err(broken(&format!("start {command:?}")))
}

/// Tells a registry that is away from an installation that fails for a reason of its own.
fn check(command: &Command, output: &Output) -> Result<(), Unavailable> {
    if output.status.success() {
        return Ok(());
    }
    let said = text(output);
    let away = said.lines().find(|line| REGISTRY_IS_AWAY.iter().any(|phrase| line.contains(phrase)));
    if let Some(line) = away {
        return Err(Absent::Registry(line.trim().to_owned()).into());
    }
    Err(Unavailable::Broken(format!("{command:?} ended with {}:\n{said}", output.status)))
}

fn text(output: &Output) -> String {
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    out + &err
}

fn broken<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Unavailable {
    let what = what.to_owned();
    move |error| Unavailable::Broken(format!("{what}: {error}"))
}

mod tests {
    use super::*;

    fn verdict(script: &str) -> Result<(), Unavailable> {
        checked(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn only_a_registry_that_is_away_is_a_reason_to_skip_an_installation() {
        let away = verdict("echo 'Could not transfer artifact org.example:a:1' >&2; exit 1");
        let wrong = verdict("echo 'the pom is malformed' >&2; exit 1");

        assert!(
            matches!(&away, Err(Unavailable::Absent(Absent::Registry(why))) if why.contains("org.example"))
        );
        assert!(matches!(&wrong, Err(Unavailable::Broken(why)) if why.contains("malformed")), "{wrong:?}");
        assert!(verdict("true").is_ok());
    }

    #[test]
    fn a_program_that_is_not_installed_is_a_reason_to_skip() {
        let missing = program("highwater-no-such-program");

        assert!(matches!(missing, Err(Unavailable::Absent(Absent::Toolchain(_)))), "{missing:?}");
    }
}
