//! Against real files and real programs: scripts that speak the helpers' protocol, well or badly.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::helper::Helper;

struct Home(tempfile::TempDir);

impl Home {
    fn with(content: &str) -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        fs::write(home.path(), content).unwrap();
        home
    }

    fn path(&self) -> PathBuf {
        self.0.path().join(FILE_NAME)
    }

    fn configuration(&self) -> Configuration {
        Configuration::in_folder(self.0.path())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path()).unwrap()).unwrap()
    }
}

fn password(username: &str, password: &str) -> Secret {
    Secret::Password {
        username: username.into(),
        password: password.into(),
    }
}

#[test]
fn entries_of_all_kinds_are_found_by_host() {
    let home = Home::with(
        r#"{"auths":{
        "https://index.docker.io/v1/":{"auth":"aHViOnA6dw=="},
        "registry.example:5000":{"username":"a","password":"b"},
        "https://old.example/v2/":{"auth":"bzpwAAA="},
        "token.example":{"auth":"eDo=","identitytoken":"T"},
        "bearer.example":{"registrytoken":"R"},
        "helped.example":{}}}"#,
    );
    for (host, found) in [
        ("docker.io", Some(password("hub", "p:w"))),
        ("registry.example:5000", Some(password("a", "b"))),
        ("registry.example", None),
        ("old.example", Some(password("o", "p"))),
        ("token.example", Some(Secret::IdentityToken("T".into()))),
        ("bearer.example", Some(Secret::RegistryToken("R".into()))),
        ("helped.example", None),
        ("example", None),
    ] {
        assert!(home.configuration().find(host).unwrap() == found, "{host}");
    }
    let nowhere = Configuration::in_folder(Path::new("/nonexistent"));
    assert!(nowhere.find("a.example").unwrap().is_none());
}

#[test]
fn what_cannot_be_used_is_told_without_the_secret() {
    for (content, word) in [
        ("[", "config.json"),
        (r#"{"auths":{"a.b":{"auth":"s3cr3t"}}}"#, "a.b"),
        (r#"{"auths":{"a.b":{"auth":["s3cr3t"]}}}"#, "a.b"),
        (r#"{"auths":{"a.b":{"auth":"c2VjcmV0"}}}"#, "a.b"),
        (r#"{"credsStore":"../s3cr3t"}"#, "credential helper"),
        (r#"{"credHelpers":{"a.b":7}}"#, "credential helper"),
        (
            r#"{"credsStore":"nobody-has-this"}"#,
            "docker-credential-nobody-has-this",
        ),
    ] {
        let error = Home::with(content)
            .configuration()
            .find("a.b")
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(word) && !error.contains("s3cr3t") && !error.contains("c2Vj"),
            "{error}"
        );
    }
}

#[test]
fn a_login_keeps_all_else_and_is_its_owners_only() {
    let home = Home::with(
        r#"{"detachKeys":"ctrl-x","auths":{"http://a.b/v1/":{"auth":"eDp5"},"c.d":{"auth":"eDp5"}}}"#,
    );
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let place = home.configuration().keep("a.b", &password("me", "new")).unwrap();
    assert_eq!(place, Place::File(home.path()));
    assert_eq!(
        home.json(),
        serde_json::json!({"detachKeys":"ctrl-x","auths":{"a.b":{"auth":"bWU6bmV3"},"c.d":{"auth":"eDp5"}}})
    );
    assert_eq!(
        fs::metadata(home.path()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(home.configuration().find("a.b").unwrap() == Some(password("me", "new")));
    assert!(home.configuration().forget("a.b").unwrap());
    assert!(!home.configuration().forget("a.b").unwrap());
    assert_eq!(home.json()["auths"], serde_json::json!({"c.d":{"auth":"eDp5"}}));
    assert_eq!(
        fs::read_dir(home.0.path()).unwrap().count(),
        1,
        "nothing temporary is left"
    );
}

#[test]
fn a_file_behind_a_link_is_changed_where_it_is() {
    let (home, shared) = (tempfile::tempdir().unwrap(), Home::with("{}"));
    std::os::unix::fs::symlink(shared.path(), home.path().join(FILE_NAME)).unwrap();
    let configuration = Configuration::in_folder(home.path());
    configuration
        .keep("docker.io", &Secret::IdentityToken("T".into()))
        .unwrap();
    assert_eq!(
        shared.json()["auths"]["https://index.docker.io/v1/"]["identitytoken"],
        "T"
    );
    assert!(home.path().join(FILE_NAME).is_symlink());
}

#[test]
fn a_damaged_file_is_not_overwritten() {
    let home = Home::with("{\"auths\":");
    assert!(home.configuration().keep("a.b", &password("a", "b")).is_err());
    assert_eq!(fs::read_to_string(home.path()).unwrap(), "{\"auths\":");
}

#[test]
fn the_folder_is_docker_config_or_in_the_home() {
    let path = |folder: Option<&str>, home: Option<&str>| {
        Configuration::from(folder.map(Into::into), home.map(Into::into)).map(|c| c.path)
    };
    assert_eq!(path(Some("/d"), Some("/h")), Some("/d/config.json".into()));
    assert_eq!(path(None, Some("/h")), Some("/h/.docker/config.json".into()));
    assert_eq!(path(None, None), None);
}

/// A helper that is a script.
fn helper(name: &str, script: &str) -> (Helper, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("helper");
    fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let helper = Helper::new(name).unwrap().at(&path);
    (helper, folder)
}

#[test]
fn helpers_that_misbehave_end_with_an_error_each() {
    for (script, word) in [
        ("echo nonsense", "JSON"),
        ("echo '{}'", "JSON"),
        ("echo the keyring is locked; exit 1", "keyring is locked"),
        ("exit 3", "exit status: 3"),
        ("kill -9 $$", "signal: 9"),
        ("yes", "more than"),
        ("exec sleep 100", "not answered"),
        ("exec sleep 100 >&-", "not answered"),
    ] {
        let (helper, _folder) = self::helper("bad", script);
        let error = helper
            .with_timeout(Duration::from_secs(1))
            .get("a.b")
            .err()
            .unwrap();
        assert!(error.to_string().contains(word), "{script}: {error}");
    }
    let (helper, _folder) = self::helper("empty", "echo credentials not found in native keychain; exit 1");
    assert!(helper.get("a.b").unwrap().is_none());
}

#[test]
fn a_token_is_told_from_a_password_by_its_user() {
    let answer = |text: &str| crate::helper::parse_get(text.as_bytes()).unwrap();
    assert!(
        answer(r#"{"ServerURL":"x","Username":"<token>","Secret":"T"}"#)
            == Some(Secret::IdentityToken("T".into()))
    );
    assert!(answer(r#"{"Username":"me","Secret":"pw"}"#) == Some(password("me", "pw")));
    assert!(answer(r#"{"Username":"me","Secret":""}"#).is_none());
    assert_eq!(crate::helper::parse_list(b"null").unwrap(), [""; 0]);
}
