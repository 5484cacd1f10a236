package icbench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/trunkline-db/trunkline/datadir"
)

// traffic is what has gone between instances since some moment.
type traffic struct {
	bytes, packets int64
	retransmits    int64
}

func (t traffic) minus(o traffic) traffic {
	return traffic{t.bytes - o.bytes, t.packets - o.packets, t.retransmits - o.retransmits}
}

// meter reads the counters of a site.
type meter struct {
	s   *site
	pid int
}

func (s *site) meter(ctx context.Context) (*meter, error) {
	pids, err := s.pids(ctx)
	if err != nil {
		return nil, err
	}
	return &meter{s: s, pid: pids[0].pid}, nil
}

// read returns what the kernel, or the emulator, has counted so far.
// Retransmissions are TCP's.
func (m *meter) read() (t traffic, err error) {
	if !m.s.wide {
		if t.bytes, t.packets, err = deviceCounters(m.pid, "lo"); err == nil {
			t.retransmits, err = tcpRetransmits(procPath(m.pid, "net/snmp"))
		}
		return t, err
	}
	sum := m.s.net.Total()
	t.bytes, t.packets = int64(sum.SentBytes), int64(sum.Sent)
	for i := range m.s.net.Hosts() {
		err = m.s.net.Host(i).Do(func() error {
			n, err := tcpRetransmits("/proc/thread-self/net/snmp")
			t.retransmits += n
			return err
		})
		if err != nil {
			break
		}
	}
	return t, err
}

// deviceCounters are the bytes and packets that a device in the namespace of a
// process has received.
func deviceCounters(pid int, device string) (bytes, packets int64, err error) {
	path := procPath(pid, "net/dev")
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); strings.TrimSpace(name) == device && len(f) > 2 {
			if bytes, err = strconv.ParseInt(f[0], 10, 64); err == nil {
				packets, err = strconv.ParseInt(f[1], 10, 64)
			}
			return bytes, packets, err
		}
	}
	return 0, 0, fmt.Errorf("%s: no device %s", path, device)
}

// tcpRetransmits is Tcp RetransSegs of a file like /proc/net/snmp.
func tcpRetransmits(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := snmpValue(string(text), "Tcp", "RetransSegs")
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// snmpValue finds a counter in pairs of lines, one of names and one of values.
func snmpValue(text, group, name string) (int64, error) {
	var names []string
	for line := range strings.Lines(text) {
		head, rest, _ := strings.Cut(line, ":")
		if head != group {
			continue
		}
		if names == nil {
			names = strings.Fields(rest)
			continue
		}
		for i, v := range strings.Fields(rest) {
			if i < len(names) && names[i] == name {
				return strconv.ParseInt(v, 10, 64)
			}
		}
		break
	}
	return 0, fmt.Errorf("no counter %s %s", group, name)
}

// statsLine is what gp_interconnect_log_stats writes for a statement.
var statsLine = regexp.MustCompile(`data packets (\d+), retransmits (\d+).*datagrams sent (\d+) \((\d+) bytes\)`)

// logMarks are the ends of the instances' logs.
type logMarks map[string]int64

func (s *site) markLogs() logMarks {
	m := logMarks{}
	for _, inst := range s.c.Instances() {
		path := filepath.Join(datadir.Dir(inst.Datadir).LogDir(), "instance.log")
		if fi, err := os.Stat(path); err == nil {
			m[path] = fi.Size()
		} else {
			m[path] = 0
		}
	}
	return m
}

// since sums up udpifc's own statistics that were logged since the marks. ok
// is false when there are none.
func (m logMarks) since() (t traffic, ok bool) {
	for path, at := range m {
		text, err := tail(path, at)
		if err != nil {
			continue
		}
		for _, f := range statsLine.FindAllSubmatch(text, -1) {
			ok = true
			t.retransmits += number(f[2])
			t.packets += number(f[3])
			t.bytes += number(f[4])
		}
	}
	return t, ok
}

func number(b []byte) int64 {
	n, _ := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	return n
}

func tail(path string, at int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, at, 64<<20))
}
