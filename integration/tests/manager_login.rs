//! `managerctl login` and `logout` against a real registry with passwords: what is kept where, and what it opens.

use integration::{Image, Manager, Sandbox, Terminal, eventually, run};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const HOST: &str = "127.0.0.1:5001";
/// The user `me` with the password `secret`, as htpasswd writes it.
const PASSWORDS: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A registry with passwords beside the manager's own, an image in it, and a person with an empty home.
struct Private {
    registry: Child,
    home: PathBuf,
}

impl Private {
    #[track_caller]
    fn start(sandbox: &Sandbox, manager: &Manager) -> Self {
        let folder = sandbox.path().join("private");
        let home = folder.join("home");
        fs::create_dir_all(&home).expect("make the home");
        fs::write(folder.join("passwords"), PASSWORDS).expect("write the passwords");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\n\
             http: {{addr: {HOST}}}\nauth: {{htpasswd: {{realm: r, path: {0}/passwords}}}}\n",
            folder.display()
        );
        fs::write(folder.join("config.yml"), text).expect("write the registry's configuration");
        let registry = manager
            .inside("docker-registry")
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry");
        let private = Self { registry, home };
        eventually("the registry answers", || {
            let answer = run(manager
                .inside("bash")
                .args(["-c", "exec 3<>/dev/tcp/127.0.0.1/5001"]));
            (answer.code == 0).then_some(())
        });
        let layout = folder.join("layout");
        fs::create_dir(&layout).expect("make a folder for the layout");
        Image::busybox().write_layout(&layout);
        run(manager
            .inside("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--dest-tls-verify=false",
                "--dest-creds=me:secret",
            ])
            .arg(format!("oci:{}:image", layout.display()))
            .arg(format!("docker://{}", Self::image())))
        .ok();
        private
    }

    fn image() -> String {
        format!("{HOST}/app:1")
    }

    fn ctl(&self, manager: &Manager, args: &[&str]) -> Command {
        let mut command = manager.ctl_command(args);
        command.env("DOCKER_CONFIG", &self.home);
        command
    }

    /// `managerctl ARGS` with a text on stdin: its exit code and all that it said.
    #[track_caller]
    fn say(&self, manager: &Manager, args: &[&str], input: &str) -> (i32, String) {
        let typed = self.home.join("input");
        fs::write(&typed, input).expect("write the input");
        let mut command = self.ctl(manager, args);
        command.stdin(fs::File::open(&typed).expect("open the input"));
        let output = command.output().expect("start managerctl");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    fn config(&self) -> PathBuf {
        self.home.join("config.json")
    }

    #[track_caller]
    fn kept(&self) -> Value {
        serde_json::from_slice(&fs::read(self.config()).expect("read config.json")).expect("it is JSON")
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

#[test]
fn a_login_opens_a_registry_until_the_logout() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let private = Private::start(&sandbox, &manager);
    fs::write(private.config(), r#"{"detachKeys":"ctrl-x"}"#).expect("write config.json");
    let image = Private::image();

    let (code, said) = private.say(&manager, &["pull", &image], "");
    assert!(code != 0 && said.contains("denied"), "{said}");
    let login = ["login", "--username", "me", "--password-stdin", HOST];
    let (code, said) = private.say(&manager, &login, "not mine\n");
    assert!(
        code == 1 && said.contains("denied") && !said.contains("not mine\n"),
        "{said}"
    );
    assert_eq!(
        private.kept(),
        json!({"detachKeys": "ctrl-x"}),
        "nothing is kept of a login that fails"
    );

    let (code, said) = private.say(&manager, &login, "secret\n");
    assert!(
        code == 0 && said.contains("Login Succeeded") && said.contains("unencrypted"),
        "{said}"
    );
    assert_eq!(private.kept()["auths"], json!({HOST: {"auth": "bWU6c2VjcmV0"}}));
    assert_eq!(private.kept()["detachKeys"], "ctrl-x");
    let mode = fs::metadata(private.config())
        .expect("look at config.json")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, said) = private.say(&manager, &["pull", &image], "");
    assert_eq!(code, 0, "{said}");
    let (code, said) = private.say(&manager, &["login", HOST], "");
    assert!(code == 0 && said.contains("existing credentials"), "{said}");

    let (_, said) = private.say(&manager, &["logout", HOST], "");
    assert!(said.contains("Removing login credentials"), "{said}");
    assert_eq!(private.kept(), json!({"detachKeys": "ctrl-x", "auths": {}}));
    let (_, said) = private.say(&manager, &["logout", HOST], "");
    assert!(said.contains("Not logged in"), "{said}");
    let (code, said) = private.say(&manager, &["login", HOST], "");
    assert!(code == 1 && said.contains("not a terminal"), "{said}");
    manager.ctl(&["rmi", &image]).ok();
    let (code, said) = private.say(&manager, &["pull", &image], "");
    assert!(code != 0 && said.contains("denied"), "{said}");
}

/// A credential helper that keeps all in files, and its folder in `PATH`.
fn helper(folder: &Path) -> String {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).expect("make the helper's folder");
    let script = format!(
        r#"#!/bin/sh
cd {}/kept || exit 1
case $1 in
store) text=$(cat); name=$(printf %s "$text" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); printf %s "$text" >"$name" ;;
get) read -r name; [ -e "$name" ] && exec cat "$name"; printf 'credentials not found in native keychain\n'; exit 1 ;;
erase) read -r name; rm -f "$name" ;;
list) printf '{{'; for f in *; do [ -e "$f" ] && printf '"%s":"me"' "$f"; done; printf '}}' ;;
esac
"#,
        folder.display()
    );
    fs::create_dir_all(folder.join("kept")).expect("make the helper's store");
    let program = bin.join("docker-credential-files");
    fs::write(&program, script).expect("write the helper");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it a program");
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn a_credential_helper_keeps_what_is_typed_at_the_terminal() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let private = Private::start(&sandbox, &manager);
    let path = helper(&private.home);
    fs::write(
        private.config(),
        format!(r#"{{"credHelpers":{{"{HOST}":"files"}}}}"#),
    )
    .expect("write config.json");

    let mut command = private.ctl(&manager, &["login", HOST]);
    command.env("PATH", &path);
    let mut terminal = Terminal::spawn(command);
    terminal.expect("Username: ");
    terminal.send("me\r");
    terminal.expect("Password: ");
    terminal.send("secret\r");
    let shown = terminal.expect("Login Succeeded");
    assert!(!shown.contains("secret"), "a password is not shown: {shown}");
    assert_eq!(
        private.kept()["auths"],
        json!({HOST: {}}),
        "docker's sign that a helper has it"
    );
    let kept = fs::read_to_string(private.home.join("kept").join(HOST)).expect("the helper has it");
    assert!(
        kept.contains(r#""Username":"me""#) && kept.contains(r#""Secret":"secret""#),
        "{kept}"
    );

    let pull = |path: &str| {
        let mut command = private.ctl(&manager, &["pull", &Private::image()]);
        run(command.env("PATH", path))
    };
    let without = pull("/usr/sbin:/usr/bin:/sbin:/bin");
    assert!(
        without.code != 0 && without.stderr.contains("docker-credential-files"),
        "{}",
        without.stderr
    );
    pull(&path).ok();
    let mut command = private.ctl(&manager, &["logout", HOST]);
    run(command.env("PATH", &path)).ok();
    assert_eq!(
        fs::read_dir(private.home.join("kept"))
            .expect("list what is kept")
            .count(),
        0
    );
}
