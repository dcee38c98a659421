//! How a server hangs: each of these never returns, as the real one does not in such a case.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{LIFETIME, Script, threads};

fn wait_for(descriptors: &[(&dyn AsFd, PollFlags)]) {
    let mut polled: Vec<PollFd> = descriptors
        .iter()
        .map(|(descriptor, events)| PollFd::new(descriptor.as_fd(), *events))
        .collect();
    // With a time to wait at most, as a socket of Python has it.
    let most = i32::try_from(LIFETIME.as_millis()).unwrap();
    poll(&mut polled, PollTimeout::try_from(most).unwrap()).unwrap();
}

pub(crate) fn hang(mode: &str, client: &mut TcpStream, script: &Script) {
    let mut bjobs = Command::new(script.text("child").unwrap_or("/bin/sleep"));
    bjobs.arg0("bjobs").arg("299");
    let peer = || script.text("peer").unwrap();
    let lock = Mutex::new(());
    match mode {
        "write" => while client.write_all(&[b'x'; 1 << 12]).is_ok() {},
        "poll" => wait_for(&[(client, PollFlags::POLLIN)]),
        "poll-write" => {
            client.set_nonblocking(true).unwrap();
            while client.write(&[b'x'; 1 << 12]).is_ok() {}
            wait_for(&[(client, PollFlags::POLLOUT)]);
        }
        "epoll" => {
            let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
            let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
            epoll.add(&*client, event).unwrap();
            let mut ready = [EpollEvent::empty()];
            epoll.wait(&mut ready, EpollTimeout::NONE).unwrap();
        }
        "thread" => {
            let mut client = client.try_clone().unwrap();
            let reading = std::thread::spawn(move || client.read(&mut [0]));
            let _ = reading.join();
        }
        "child" => drop(bjobs.status()),
        "captured" => drop(bjobs.output()),
        "wrapped" => drop(
            Command::new("/bin/sh")
                .args(["-c", "/bin/sleep 299; :"])
                .output(),
        ),
        "children" => {
            let mut helper = Command::new("/bin/sleep");
            helper.arg0("helper").arg("299");
            let _started = (helper.spawn().unwrap(), bjobs.spawn().unwrap());
            let _ = nix::sys::wait::wait();
        }
        "forked" => threads::fork_and_wait(LIFETIME),
        "remote" => {
            let mut peer = TcpStream::connect(peer()).unwrap();
            let _ = peer.read(&mut [0]);
        }
        "connect" => drop(TcpStream::connect(peer())),
        "datagram" => {
            let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
            resolver.connect(peer()).unwrap();
            let _ = resolver.recv(&mut [0]);
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        "deadlock" => {
            let _held = lock.lock().unwrap();
            drop(lock.lock());
        }
        "descriptors" => {
            let opened: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            std::thread::sleep(LIFETIME);
            drop(opened);
        }
        "sleep" => std::thread::sleep(LIFETIME),
        "open" => drop(File::open(script.text("file").unwrap())),
        "memory" => {
            let mut taken: Vec<Vec<u8>> = Vec::new();
            loop {
                taken.push(vec![1; 1 << 20]);
            }
        }
        _ => panic!("no way to hang: {mode}"),
    }
}

/// Waits for its clients and for new ones, and answers nobody.
pub(crate) fn event_loop(listener: &TcpListener, client: TcpStream) {
    let mut clients = vec![client];
    loop {
        wait_for(&[
            (listener, PollFlags::POLLIN),
            (&clients[0], PollFlags::POLLIN),
        ]);
        clients.push(listener.accept().unwrap().0);
    }
}
