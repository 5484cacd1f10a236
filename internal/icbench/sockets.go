package icbench

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// process is one that holds sockets.
type process struct {
	dbid  uint16
	pid   int
	proxy bool
	port  int // the instance's own, on which it serves clients
}

// Sockets are counts of what the interconnect holds.
type Sockets struct {
	// TCP are the established connections, and Within those of them that have
	// both ends in the same instance: a segment sends to itself as to every
	// other. A connection is one, though it has two ends.
	TCP    int `json:"tcp_connections"`
	Within int `json:"tcp_connections_same_instance"`
	UDP    int `json:"udp_sockets"`
	Listen int `json:"listening_tcp_ports"`
}

// Ports is how many ports of their addresses the sockets take that wait for
// others: listening ones and those of UDP.
func (s Sockets) Ports() int { return s.UDP + s.Listen }

// socket is a line of /proc/net/{tcp,udp}.
type socket struct {
	local, remote netip.AddrPort
	state         byte
	inode         uint64
}

// States of TCP sockets.
const (
	stateEstablished = 0x01
	stateListen      = 0x0A
)

// countSockets counts the sockets of the executors, and those of the proxies.
// Each process's sockets are looked up in the process's own network namespace.
// A process that is gone counts as one without sockets.
func countSockets(list []process) (executors, proxies Sockets, err error) {
	type end struct {
		local, remote netip.AddrPort
		proxy         bool
	}
	ends := map[end]uint16{} // established, by whom
	tables := map[string][2][]socket{}
	for _, p := range list {
		inodes, err := socketInodes(p.pid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return executors, proxies, err
		}
		ns, err := os.Readlink(procPath(p.pid, "ns/net"))
		if err != nil {
			return executors, proxies, err
		}
		table, ok := tables[ns]
		if !ok {
			for i, names := range [][]string{{"tcp", "tcp6"}, {"udp", "udp6"}} {
				if table[i], err = readTables(p.pid, names...); err != nil {
					return executors, proxies, err
				}
			}
			tables[ns] = table
		}
		n := &executors
		if p.proxy {
			n = &proxies
		}
		for _, s := range table[0] {
			switch {
			case !inodes[s.inode]:
			case s.state == stateListen && int(s.local.Port()) != p.port:
				n.Listen++
			case s.state == stateEstablished:
				ends[end{s.local, s.remote, p.proxy}] = p.dbid
			}
		}
		for _, s := range table[1] {
			if inodes[s.inode] {
				n.UDP++
			}
		}
	}
	for a, from := range ends {
		to, ok := ends[end{a.remote, a.local, a.proxy}]
		if !ok || a.local.Compare(a.remote) > 0 { // seen from both ends
			continue
		}
		n := &executors
		if a.proxy {
			n = &proxies
		}
		n.TCP++
		if from == to {
			n.Within++
		}
	}
	return executors, proxies, nil
}

func procPath(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }

// socketInodes are the sockets that a process has open.
func socketInodes(pid int) (map[uint64]bool, error) {
	dir := procPath(pid, "fd")
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("open files of process %d: %w", pid, err)
	}
	set := map[uint64]bool{}
	for _, name := range names {
		to, err := os.Readlink(dir + "/" + name)
		if err != nil {
			continue // closed meanwhile
		}
		if text, ok := strings.CutPrefix(to, "socket:["); ok {
			if n, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64); err == nil {
				set[n] = true
			}
		}
	}
	return set, nil
}

func readTables(pid int, names ...string) (all []socket, err error) {
	for _, name := range names {
		text, err := os.ReadFile(procPath(pid, "net/"+name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		list, err := parseTable(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", procPath(pid, "net/"+name), err)
		}
		all = append(all, list...)
	}
	return all, nil
}

// parseTable reads /proc/net/tcp and its likes.
func parseTable(text string) ([]socket, error) {
	var list []socket
	first := true
	for line := range strings.Lines(text) {
		if first { // the heading
			first = false
			continue
		}
		// sl local remote st queues timer retransmits uid timeout inode …
		f := strings.Fields(line)
		if len(f) < 10 {
			return nil, fmt.Errorf("a line of %d fields: %q", len(f), line)
		}
		local, err := parseAddress(f[1])
		if err != nil {
			return nil, err
		}
		remote, err := parseAddress(f[2])
		if err != nil {
			return nil, err
		}
		state, err := strconv.ParseUint(f[3], 16, 8)
		if err != nil {
			return nil, fmt.Errorf("state %q", f[3])
		}
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("inode %q", f[9])
		}
		list = append(list, socket{local, remote, byte(state), inode})
	}
	return list, nil
}

// parseAddress reads "0100007F:1F90": words of 32 bits as the machine has them
// in memory (little-endian, as on everything this runs on), then the port.
func parseAddress(s string) (netip.AddrPort, error) {
	addr, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	n, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || (len(b) != 4 && len(b) != 16) {
		return netip.AddrPort{}, fmt.Errorf("address %q", s)
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	ip, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}
