//! `hearth new`, `hearth build` and `hearth up`: from nothing to an own function that answers, and to its next version.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use cluster_tests::node::hearth;
use cluster_tests::{Engine, Node, NodeOptions, Sandbox, example, program};
use tokio::process::Command;

/// How long a command may take, on a machine that is busy with other tests; compilers among them.
const ENDS: Duration = Duration::from_secs(100);

/// A user at a terminal: a directory, and a node to work with.
struct User {
    dir: PathBuf,
    env: Vec<(String, String)>,
}

impl User {
    fn new(sandbox: &Sandbox, node: &Node) -> Self {
        let dir = sandbox.dir().join("work");
        std::fs::create_dir_all(&dir).expect("make a directory");
        let credentials = dir.join("credentials.json");
        let env = [
            ("HEARTH_API", node.config_url("")),
            ("HEARTH_FUNCTIONS_API", node.functions_url("")),
            // Who runs the tests may be logged in.
            ("HEARTH_CREDENTIALS_FILE", credentials.display().to_string()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value));
        Self {
            dir,
            env: env.into(),
        }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs a program in a directory below the user's.
    async fn run(&self, dir: &str, mut command: Command) -> Output {
        command
            .current_dir(self.dir.join(dir))
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        let name = format!("{command:?}");
        program::output(&name, command, ENDS).await
    }

    /// Runs `hearth`.
    async fn hearth(&self, dir: &str, line: &str) -> Output {
        let mut command = Command::from(hearth());
        command.args(line.split_whitespace());
        self.run(dir, command).await
    }

    /// Runs `hearth`, which does what it is to do, and returns what it prints on standard output.
    async fn told(&self, dir: &str, line: &str) -> String {
        let output = self.hearth(dir, line).await;
        assert!(output.status.success(), "{line}: {}", said(&output));
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }

    /// Runs `hearth`, which does not do it, and says so.
    async fn refused(&self, dir: &str, line: &str, code: i32, expected: &[&str]) {
        let output = self.hearth(dir, line).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        for expected in expected {
            assert!(said.contains(expected), "{line}: {said}");
        }
        assert!(output.stdout.is_empty(), "{line}: {said}");
    }

    /// Changes a file as a user does in an editor.
    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.dir.join(file);
        let text = std::fs::read_to_string(&path).expect("read a file");
        assert!(text.contains(from), "{file}: {text}");
        std::fs::write(&path, text.replace(from, to)).expect("write a file");
    }
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// A command of the words of a line.
fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a line has words"));
    command.args(words);
    command
}

async fn single() -> Sandbox {
    Sandbox::builder().nodes(1).embedded().start().await
}

/// Makes a function in a language, tests it with that language's tool, runs it, changes it, and runs it again.
async fn from_nothing_to_the_next_answer(language: &str, test: &str, code: &str) {
    let sandbox = single().await;
    let user = User::new(&sandbox, &sandbox.node(0));
    let made = user.told("", &format!("new --lang {language} greet")).await;
    assert!(made.contains(test), "{made}");
    let tested = user.run("greet", command(test)).await;
    assert!(tested.status.success(), "{test}: {}", said(&tested));

    let up = user.hearth("greet", "up --process").await;
    assert!(up.status.success(), "{}", said(&up));
    let answer = String::from_utf8_lossy(&up.stdout).replace(": ", ":");
    assert_eq!(answer, "{\"hello\":\"Ada\"}\n");
    let told = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(told.contains("registered greet in space default"), "{told}");
    let ran = format!(
        "ran on {}, with a new instance, in ",
        sandbox.node(0).name()
    );
    assert!(told.contains(&ran), "{told}");

    user.edit(&format!("greet/{code}"), "hello", "welcome");
    let answer = user.told("greet", "up --process --payload [1]").await;
    assert_eq!(answer.replace(": ", ":"), "{\"welcome\":[1]}\n");
    // Any client gets the new one, not only who brought it up.
    let answer = user.told("", "function invoke greet --payload null").await;
    assert_eq!(answer.replace(": ", ":"), "{\"welcome\":null}\n");

    let broken = "function invoke greet --payload-file /dev/null";
    assert_eq!(user.hearth("", broken).await.status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_function_in_rust_answers_and_so_does_its_next_version() {
    from_nothing_to_the_next_answer("rust", "cargo test", "src/main.rs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_function_in_python_answers_and_so_does_its_next_version() {
    from_nothing_to_the_next_answer("python", "python3 -m unittest", "main.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_function_in_node_answers_and_so_does_its_next_version() {
    from_nothing_to_the_next_answer("node", "node --test", "server.js").await;
}

/// The template's own Dockerfile, on a base image of the name it has there, made of this machine's Node.js: no registry is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_function_answers_from_its_image_and_its_change_from_another() {
    let engine = Engine::suite();
    let builder = Sandbox::builder().nodes(1).embedded();
    let sandbox = builder.engine(engine.clone()).start().await;
    let base = "node:lts-alpine";
    // Where Debian's Node.js has parts of itself.
    let parts = ["/usr/share/nodejs"];
    engine
        .program_image(sandbox.dir(), "node", &parts, base)
        .await;
    let user = User::new(&sandbox, &sandbox.node(0)).with("DOCKER_HOST", engine.host());
    user.told("", "new --lang node greet").await;

    let image = user.told("greet", "build").await;
    let image = image.trim_end();
    let (name, tag) = image.rsplit_once(':').expect("it has a tag");
    assert_eq!((name, tag.len()), ("hearth/greet", 12));
    assert_eq!(user.told("greet", "up").await, "{\"hello\":\"Ada\"}\n");
    let record = sandbox.stored("greet").await;
    assert_eq!(record["type"], "container");
    assert_eq!(record["provider"]["image"], image, "the same content");
    assert_eq!(sandbox.containers_of("greet").await.len(), 1);
    // As nobody in particular, and without the tests.
    let inspected = ["image", "inspect", "--format", "{{.Config.User}}", image];
    assert_eq!(engine.docker(&inspected).await.trim_end(), "65532:65532");

    user.edit("greet/server.js", "hello", "welcome");
    assert_eq!(user.told("", "up greet").await, "{\"welcome\":\"Ada\"}\n");
    let changed = sandbox.stored("greet").await;
    assert_ne!(changed["provider"]["image"], image);
    assert_ne!(changed["provider"]["digest"], record["provider"]["digest"]);

    user.edit("greet/Dockerfile", "COPY package.json", "COPY no-such-file");
    let broken = user.hearth("greet", "up").await;
    assert_eq!(broken.status.code(), Some(1), "{}", said(&broken));
    assert!(
        said(&broken).contains("` failed: exit status: 1"),
        "{}",
        said(&broken)
    );
    let kept = sandbox.stored("greet").await;
    assert_eq!(kept["provider"], changed["provider"], "what ran goes on");
}

/// Stands in for a compiler: finds the sources of the template, and no tests of Go, and makes an example of them.
const CARGO: &str = r#"#!/busybox sh
for it in Cargo.toml Cargo.lock src/main.rs src/http.rs; do test -f $it || exit 9; done
test "$*" = 'build --release --locked' || exit 8
mkdir -p target/release && cp /hello target/release/function
"#;
const GO: &str = r#"#!/busybox sh
for it in go.mod main.go; do test -f $it || exit 9; done
test ! -e main_test.go || exit 7
test "$CGO_ENABLED $*" = '0 build -trimpath -ldflags=-s -o /out/function .' || exit 8
mkdir -p /out && cp /hello /out/function
"#;

/// Builds an image with a shell and such a compiler, under the name that a template's Dockerfile has for its base.
async fn base_image(sandbox: &Sandbox, base: &str, compiler: (&str, &str)) {
    let engine = Engine::suite();
    let shell = engine.shell_image(sandbox.dir()).await;
    let (name, script) = compiler;
    let dir = sandbox.dir().join(name);
    std::fs::create_dir_all(&dir).expect("make a directory");
    std::fs::copy(example("hello"), dir.join("hello")).expect("copy an example");
    let dockerfile = format!(
        "FROM {shell}\n\
         RUN [\"/busybox\", \"mkdir\", \"-p\", \"/bin\"]\n\
         RUN [\"/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         COPY hello /hello\n\
         COPY {name} apk /bin/\n"
    );
    let files = [
        ("Dockerfile", dockerfile.as_str()),
        (name, script),
        ("apk", "#!/busybox sh\n"),
    ];
    for (file, text) in files {
        let path = dir.join(file);
        std::fs::write(&path, text).expect("write a file");
        let all = Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, all).expect("make it a program");
    }
    let dir = dir.to_str().expect("temporary directories are UTF-8");
    engine.docker(&["build", "--tag", base, dir]).await;
}

/// The two stages of their Dockerfiles, on base images that stand in for those of the languages: no registry is asked.
#[tokio::test(flavor = "multi_thread")]
async fn images_of_compiled_languages_hold_one_file_which_answers() {
    let engine = Engine::suite();
    let builder = Sandbox::builder().nodes(1).embedded();
    let sandbox = builder.engine(engine.clone()).start().await;
    let user = User::new(&sandbox, &sandbox.node(0)).with("DOCKER_HOST", engine.host());
    let cases = [
        ("rust", "rust:1-alpine", ("cargo", CARGO)),
        ("go", "golang:1-alpine", ("go", GO)),
    ];
    for (language, base, compiler) in cases {
        base_image(&sandbox, base, compiler).await;
        let id = format!("in-{language}");
        user.told("", &format!("new --lang {language} {id}")).await;
        let up = format!("up {id} --payload {{\"name\":\"Ada\"}}");
        let answer = user.told("", &up).await;
        assert!(answer.contains("\"hello\":\"Ada\""), "{answer}");
        let image = sandbox.stored(&id).await["provider"]["image"].clone();
        let image = image.as_str().expect("it names its image");
        let layers = "{{len .RootFS.Layers}} {{.Config.User}}";
        let inspected = ["image", "inspect", "--format", layers, image];
        assert_eq!(engine.docker(&inspected).await.trim_end(), "1 65532:65532");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_engine_is_told_of_the_way_without_one() {
    let sandbox = single().await;
    let user = User::new(&sandbox, &sandbox.node(0))
        .with("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    user.told("", "new --lang python greet").await;
    let expected = ["no container engine answers", "hearth up --process"];
    user.refused("greet", "up", 69, &expected).await;
    user.refused("greet", "build", 69, &expected).await;
    let gone = sandbox.node(0).request(
        reqwest::Method::GET,
        &sandbox
            .node(0)
            .config_url("/v1/spaces/default/functions/greet"),
    );
    let status = gone.send().await.expect("the node answers").status();
    assert_eq!(status, 404, "nothing is registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_runs_no_commands_says_what_it_needs() {
    let options = NodeOptions {
        is_process_denied: true,
        ..NodeOptions::default()
    };
    let sandbox = Sandbox::builder().node(options).embedded().start().await;
    let user = User::new(&sandbox, &sandbox.node(0));
    user.told("", "new --lang python greet").await;
    let expected = ["--allow-process", "hearth dev"];
    user.refused("greet", "up --process", 77, &expected).await;
}

/// Nothing is asked of a node, and nothing built, for what is wrong here.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_the_directory_is_named() {
    let sandbox = single().await;
    let user = User::new(&sandbox, &sandbox.node(0));
    user.told("", "new --lang python greet").await;
    let again = ["NAME is greet", "already"];
    user.refused("", "new --lang rust greet", 64, &again).await;
    let names = ["letters, digits", "a/b", "NAME"];
    user.refused("", "new --lang rust a/b", 64, &names).await;
    let languages = ["cobol", "rust, python, node, go"];
    user.refused("", "new --lang cobol x", 64, &languages).await;
    assert!(!Path::new(&user.dir).join("x").exists());
    let none = ["hearth.toml", "hearth new"];
    user.refused("", "up", 64, &none).await;
    user.edit("greet/hearth.toml", "memoryMb = 128", "memoryMb = 1");
    let limit = ["hearth.toml", "limits.memoryMb is 1, expected 6 to"];
    user.refused("greet", "up --process", 64, &limit).await;
}

/// Where nobody gets in without a credential: the admin's token, and a user's login.
#[tokio::test(flavor = "multi_thread")]
async fn with_authentication_on_the_login_is_used() {
    let builder = Sandbox::builder().nodes(1).embedded().auth_required();
    let sandbox = builder.start().await;
    let user = User::new(&sandbox, &sandbox.node(0));
    user.told("", "new --lang python greet").await;
    user.refused("greet", "up --process", 77, &["hearth login EMAIL"])
        .await;
    let token = format!("--token-file {}", sandbox.dir().join("token").display());
    let up = format!("up --process {token}");
    assert_eq!(user.told("greet", &up).await, "{\"hello\": \"Ada\"}\n");

    std::fs::write(user.dir.join("password"), "password123\n").expect("write a file");
    let email = "ada@example.com --password-file password";
    user.told("", &format!("user sign-up {email}")).await;
    user.told("", &format!("login {email}")).await;
    let me = user.told("", "user me").await;
    let id = me
        .trim_end()
        .rsplit(' ')
        .next()
        .expect("it ends with the id");
    let elsewhere = ["in space default", "--space u-ID", "HEARTH_SPACE"];
    user.refused("greet", "up --process", 77, &elsewhere).await;
    let own = format!("up --process --space u-{id}");
    user.refused("greet", &own, 77, &["admin"]).await;
}
