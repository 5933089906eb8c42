//! nginx before the function, and nginx before that nginx with TLS between: what a proxy of the trade adds.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;

use crate::ports::Ports;
use crate::process::Process;
use crate::wait::until;

/// How long nginx may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(3);

/// Two nginx processes with one worker each: `back` proxies to the function, `front` to `back` over TLS.
#[derive(Debug)]
pub(super) struct Nginx {
    /// The address of one nginx before the function.
    pub(super) single: SocketAddr,
    /// The address of the same with TLS.
    pub(super) tls: SocketAddr,
    /// The address of the chain of two.
    pub(super) chain: SocketAddr,
    processes: [Process; 2],
}

/// The files of a certificate, with a key as a node makes them: on the curve P-256.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificate {
    /// Makes a certificate that it signs itself, in this directory.
    pub(super) fn write(dir: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])
            .context("make a certificate")?;
        let files = Self {
            chain: dir.join("cert.pem"),
            key: dir.join("key.pem"),
        };
        std::fs::write(&files.chain, made.cert.pem())?;
        std::fs::write(&files.key, made.signing_key.serialize_pem())?;
        Ok(files)
    }
}

impl Nginx {
    /// Starts both, and waits until they take connections.
    pub(super) async fn start(
        dir: &Path,
        ports: &Ports,
        function: SocketAddr,
    ) -> anyhow::Result<Self> {
        let [single, tls, chain] =
            [(); 3].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, ports.take())));
        let (back_dir, front_dir) = (dir.join("nginx-back"), dir.join("nginx-front"));
        std::fs::create_dir_all(&back_dir)?;
        std::fs::create_dir_all(&front_dir)?;
        Certificate::write(&back_dir)?;
        let back = configuration(
            &format!(
                "listen {single}; listen {tls} ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem;"
            ),
            &format!("server {function};"),
            "proxy_pass http://up;",
        );
        let front = configuration(
            &format!("listen {chain};"),
            &format!("server {tls};"),
            "proxy_pass https://up; proxy_ssl_protocols TLSv1.3;",
        );
        let processes = [
            spawn("nginx-back", &back_dir, &back)?,
            spawn("nginx-front", &front_dir, &front)?,
        ];
        let nginx = Self {
            single,
            tls,
            chain,
            processes,
        };
        for (process, address) in [
            (&nginx.processes[0], nginx.single),
            (&nginx.processes[1], nginx.chain),
        ] {
            until("nginx listens", Duration::from_secs(10), || async {
                let status = process.status();
                assert!(
                    status.is_none(),
                    "nginx ended: {status:?}\n{}",
                    process.log()
                );
                tokio::net::TcpStream::connect(address).await.is_ok()
            })
            .await;
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker outlives a master that is killed, so the master is asked, and given time.
        for process in &self.processes {
            process.signal(Signal::SIGTERM);
        }
        let mut patience = STOP;
        let step = Duration::from_millis(10);
        while self.processes.iter().any(|one| one.status().is_none()) && !patience.is_zero() {
            std::thread::sleep(step);
            patience = patience.saturating_sub(step);
        }
    }
}

/// nginx at its best for this load: connections kept on both sides, bodies in memory, no log.
fn configuration(listen: &str, upstream: &str, pass: &str) -> String {
    format!(
        "user root;
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_body_buffer_size 256k;
  client_max_body_size 8m;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  ssl_protocols TLSv1.3;
  upstream up {{
    {upstream}
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }}
  server {{
    {listen}
    location / {{
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      {pass}
    }}
  }}
}}
"
    )
}

fn spawn(name: &str, dir: &Path, configuration: &str) -> anyhow::Result<Process> {
    std::fs::write(dir.join("nginx.conf"), configuration)?;
    let mut command = Command::new(program());
    command.arg("-p").arg(dir);
    command.args(["-c", "nginx.conf", "-e", "error.log"]);
    Ok(Process::spawn(
        &format!("{name} (install nginx with make deps)"),
        command,
        &dir.join("log"),
    ))
}

/// Debian keeps it where only root's PATH looks.
fn program() -> &'static str {
    let debian = "/usr/sbin/nginx";
    if Path::new(debian).exists() {
        debian
    } else {
        "nginx"
    }
}
