package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/topology"
)

// whyNotBound adds to the failure to listen what is known of its cause. addrs
// are those the own entry leads to.
func (p *Proxy) whyNotBound(own topology.Entry, addrs []string, err error) error {
	if len(addrs) == 0 {
		return err // the name does not resolve
	}
	why := reason(err)
	if a, perr := netip.ParseAddrPort(addrs[0]); perr == nil && a.Addr().String() != own.Host {
		why += " (" + own.Host + " is " + a.Addr().String() + ")"
	}
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		why += ": it is not an address of this host"
	case errors.Is(err, syscall.EADDRINUSE):
		pid, command := holder(own.Port)
		if pid != 0 {
			why += fmt.Sprintf(": process %d has it (%s)", pid, command)
		}
		if strings.HasPrefix(command, "postgres:") && strings.Contains(command, "ic proxy") {
			why += "; that is Greenplum's own proxy: empty " + guc.ProxyAddresses + " on this instance and put the list into " + guc.OwnProxyAddresses
		}
	}
	return &dialError{why, err}
}

// holder finds the process that listens on a TCP port of this host, as far as
// /proc shows it: pid 0 if it is another user's.
func holder(port int) (pid int, command string) {
	inodes := map[string]bool{}
	for _, table := range [...]string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
			f := strings.Fields(string(line))
			if len(f) < 10 || f[3] != "0A" || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				continue
			}
			inodes["socket:["+f[9]+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return 0, ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // what may not be read is left out
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && inodes[link] {
			proc := filepath.Dir(filepath.Dir(fd))
			pid, _ = strconv.Atoi(filepath.Base(proc))
			b, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
			command = strings.Join(strings.FieldsFunc(string(b), func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }), " ")
			if len(command) > 80 {
				command = command[:80] + "..."
			}
			return pid, command
		}
	}
	return 0, ""
}
