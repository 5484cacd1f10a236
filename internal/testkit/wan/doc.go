// Package wan emulates a wide area network on one machine: hosts that are
// network namespaces, and between them a switch of goroutines in this process
// that delays, drops, reorders, duplicates, limits the rate and cuts. What
// meets it is the kernel's own TCP and UDP, of this process or of commands
// started inside the hosts. It needs Linux, root and /dev/net/tun, no kernel
// module and no other program; [Available] says in words what is missing.
//
//	n, err := wan.New(wan.Config{Hosts: 2, Link: wan.Link{Delay: 25 * time.Millisecond, Rate: 500e6}})
//	defer n.Close()
//	ln, err := n.Host(1).Listen(ctx, "tcp4", ":0")
//	err = n.Host(0).Start(exec.Command("some-client", ln.Addr().String()))
//
// # What is emulated
//
// Each host has one TUN device with one address and its own loopback. Each
// ordered pair of hosts has a [Link] of its own, which can be changed, cut and
// mended while packets are under way. Between the same two hosts the packets
// of all connections share the link, as on a leased line; links of different
// pairs do not share anything.
//
// A packet that a host sends waits for the line (Rate, Queue), may be lost,
// travels for Delay plus at most Jitter, and may be held back (Reorder) or
// arrive twice (Duplicate). Only IPv4 between the hosts is carried; nothing
// comes in from, or goes out to, the machine's own network.
//
// # What TCP makes of it
//
// The defaults are such that plain TCP fills the link, so that whatever does
// worse than plain TCP does so by its own doing:
//
//   - The line's queue holds one product of bandwidth and round trip. That is
//     what loss-based congestion control needs to keep the line busy after it
//     has halved its window.
//   - Socket buffers may grow to 32 MB ([Config.TCPBuffer]). They are
//     namespaced settings; the machine's are left alone. Programs that set
//     SO_RCVBUF or SO_SNDBUF themselves stay under the machine's
//     net.core.rmem_max and wmem_max.
//   - The congestion control is the machine's own, because a namespace is not
//     allowed every other ([Config.CongestionControl]). It makes a difference:
//     cubic and reno give way to loss that bbr ignores. A report of a
//     measurement should name it ([Network.CongestionControl]).
//   - What TCP learnt in one connection (the slow start threshold) is not kept
//     for the next, so that measurements do not depend on their order.
//
// # Precision
//
// A packet never arrives early. It arrives late by what the scheduler of this
// process and the kernel need, typically 0.1 ms, and on a busy link by up to
// 0.2 ms more, because the switch then wakes up at most 5000 times a second.
// The switch is one program among others: where all cores are taken it is
// late, packets bunch, and TCP, bbr above all, makes less of the link.
// [Counters].Late and [Host.DeviceDrops] tell; a comparison then needs quiet,
// or interleaved rounds.
//
// # Threads and namespaces
//
// [Host.Do] and what is built on it runs a function on a thread that is inside
// the host's namespace for that time. A socket belongs to the namespace in
// which it was made, whichever goroutine uses it afterwards. A goroutine
// started by the function is not inside.
//
// The namespaces have no names: they are held by descriptors of this process
// and by the processes started inside. [Network.Close] ends the latter; when
// this process dies without it, the devices vanish with it and the namespaces
// with the last process inside.
package wan
