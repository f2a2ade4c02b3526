//! Traffic of a container's links, as the kernel counts it.

use crate::member::is_of_container;

/// Bytes that were received and sent, in the network namespace of the process `pid` of container `id`; None: that
/// process has ended.
pub(super) fn traffic(id: &str, pid: u32) -> Option<(u64, u64)> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let links = read("net/dev")?;
    // Looked at afterwards: the number may be another process's by now.
    is_of_container(pid, id).then(|| sum(&links))
}

/// `/proc/net/dev`, see `proc_net(5)`: two lines of headings, then eight numbers of what was received and eight of what
/// was sent for each link.
fn sum(links: &str) -> (u64, u64) {
    let of_link = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        (name.trim() != "lo").then_some((*numbers.first()?, *numbers.get(8)?))
    };
    let links = links.lines().skip(2).filter_map(of_link);
    links.fold((0, 0), |(received, sent), link| {
        (link.0.saturating_add(received), link.1.saturating_add(sent))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_links_count_but_the_loopback() {
        let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1000 10 0 0 0 0 0 0 1000 10 0 0 0 0 0 0
  eth0: 20 2 0 0 0 0 0 0 30 3 0 0 0 0 0 0
  eth1:4 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0
broken: 1
";
        assert_eq!(sum(text), (24, 35));
        assert_eq!(sum(""), (0, 0));
    }
}
