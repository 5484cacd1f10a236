package execute

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/udpifc"
)

// TestSettings holds what each parameter of motions means, and that none of
// them means nothing.
func TestSettings(t *testing.T) {
	base, err := Interconnects{Content: 1}.read(nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{
		guc.InterconnectType: true, // chooses the type: TestTypes
		guc.AddressType:      true, // TestHosts
	}
	for _, c := range []struct {
		name, value string
		change      func(*settings)
	}{
		{guc.SetupTimeout, "5min", func(s *settings) { s.setup = 5 * time.Minute }},
		{guc.SetupTimeout, "0", func(s *settings) { s.setup = -1 }},
		{guc.TransmitTimeout, "90", func(s *settings) {
			s.transmit = 90 * time.Second
			s.udp.TransmitTimeout = s.transmit
		}},
		{guc.TCPListenerBacklog, "7", func(s *settings) { s.backlog = 7 }},
		{guc.TCPListenerBacklog, "0", func(s *settings) { s.backlog = -1 }},
		{guc.AggressiveRetry, "off", func(s *settings) { s.slowRetry = true }},
		{guc.MaxPacketSize, "1400", func(s *settings) { s.packet = 1400 }},
		{guc.LogInterconnect, "off", func(s *settings) { s.level = logOff }},
		{guc.LogInterconnect, "verbose", func(s *settings) { s.level = logVerbose }},
		{guc.LogInterconnect, "DEBUG", func(s *settings) { s.level = logDebug }},
		{guc.LogStats, "on", func(s *settings) { s.stats = true }},
		{guc.FlowControl, "capacity", func(s *settings) { s.udp.Capacity = true }},
		{guc.QueueDepth, "9", func(s *settings) { s.udp.QueueDepth = 9 }},
		{guc.SndQueueDepth, "8", func(s *settings) { s.udp.SndQueueDepth = 8 }},
		{guc.TimerPeriod, "7ms", func(s *settings) { s.udp.TimerPeriod = 7 * time.Millisecond }},
		{guc.TimerChecking, "6", func(s *settings) { s.udp.TimerCheckingPeriod = 6 * time.Millisecond }},
		{guc.DefaultRTT, "1s", func(s *settings) { s.udp.DefaultRTT = time.Second }},
		{guc.MinRTO, "30", func(s *settings) { s.udp.MinRTO = 30 * time.Millisecond }},
		{guc.MinRetries, "50", func(s *settings) { s.udp.MinRetries = 50 }},
		{guc.RetryInterval, "3", func(s *settings) { s.udp.RetryInterval = 3 }},
		{guc.CacheFuture, "off", func(s *settings) { s.udp.DropFuture = true }},
		{guc.FullCRC, "on", func(s *settings) { s.udp.FullCRC = true }},
		{guc.UDPBufferSize, "1MB", func(s *settings) { s.bufferKB = 1024 }},
		{guc.DropData, "10", func(s *settings) { s.udp.DropData = 10 }},
		{guc.DropAcks, "20", func(s *settings) { s.udp.DropAcks = 20 }},
		{guc.FaultPercent, "30", func(s *settings) { s.udp.FaultPercent = 30 }},
		{guc.FaultBitmap, "16777216", func(s *settings) { s.udp.Faults = 1 << udpifc.FaultDuplicate }},
		{guc.DisableIPv6, "1", func(s *settings) { s.udp.OnlyIPv4 = true }},
		{guc.DropSegment, "0", func(*settings) {}}, // below
	} {
		seen[c.name] = true
		want := *base
		c.change(&want)
		got, err := Interconnects{Content: 1}.read(map[string]string{c.name: c.value})
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s = %s: %v\n%+v, want\n%+v", c.name, c.value, err, got, want)
		}
	}
	for _, name := range guc.Motions() {
		if !seen[name] {
			t.Errorf("%s has no effect, or none that is tested", name)
		}
	}
	for seg, lossy := range map[string]bool{"-2": true, "1": true, "0": false, "-1": false} {
		s, err := Interconnects{Content: 1}.read(map[string]string{guc.DropSegment: seg, guc.DropData: "1", guc.DropAcks: "1", guc.FaultPercent: "1"})
		if err != nil || (s.udp.DropData != 0) != lossy || (s.udp.DropAcks != 0) != lossy || (s.udp.FaultPercent != 0) != lossy {
			t.Errorf("gp_udpic_dropseg = %s on content 1: %+v, %v", seg, s, err)
		}
	}
	for name, want := range map[string]string{
		guc.QueueDepth:   `5000 is outside the valid range for parameter "gp_interconnect_queue_depth" (1 .. 4096)`,
		guc.SetupTimeout: `invalid value for parameter "gp_interconnect_setup_timeout": "soon"`,
		guc.FlowControl:  `invalid value for parameter "gp_interconnect_fc_method": "prayer"`,
	} {
		value := map[string]string{guc.QueueDepth: "5000", guc.SetupTimeout: "soon", guc.FlowControl: "prayer"}[name]
		_, err := Interconnects{}.New("udpifc", map[string]string{name: value})
		var me *motion.Error
		if !errors.As(err, &me) || me.Code != guc.CodeInvalidValue || me.Message != want {
			t.Errorf("%s = %s: %v", name, value, err)
		}
	}
}

// TestHosts: where motions listen and what senders are told.
func TestHosts(t *testing.T) {
	for _, c := range []struct {
		own, given, typ   string
		listen, advertise string
	}{
		{"", "", "", "127.0.0.1", "127.0.0.1"},
		{"", "10.0.0.2", "unicast", "10.0.0.2", "10.0.0.2"},
		{"sdw1", "10.0.0.2", "unicast", "sdw1", "sdw1"},
		{"sdw1", "", "wildcard", "0.0.0.0", "sdw1"},
		{"", "", "wildcard", "0.0.0.0", "127.0.0.1"},
	} {
		params := map[string]string{}
		if c.given != "" {
			params["gp_interconnect_address"] = c.given
		}
		if c.typ != "" {
			params[guc.AddressType] = c.typ
		}
		if l, a := (Interconnects{Address: c.own}).hosts(params); l != c.listen || a != c.advertise {
			t.Errorf("%+v: listens on %s, senders go to %s", c, l, a)
		}
	}
}

// logBook is a log that can be read while it is written.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns the lines since the last call.
func (l *logBook) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSuffix(l.b.String(), "\n"), "\n")
	l.b.Reset()
	return slices.DeleteFunc(lines, func(s string) bool { return s == "" })
}

// ends are two executors of a type.
type ends struct {
	t        *testing.T
	log      logBook
	from, to *Interconnect
	command  uint32
}

func newEnds(t *testing.T, typ string, params map[string]string) *ends {
	t.Helper()
	e := &ends{t: t}
	for i, ic := range []**Interconnect{&e.from, &e.to} {
		m, err := Interconnects{Content: int16(i), Log: slog.New(slog.NewTextHandler(&e.log, nil))}.New(typ, params)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		*ic = m.(*Interconnect)
	}
	return e
}

func (e *ends) tune(params map[string]string) {
	e.t.Helper()
	for _, ic := range []*Interconnect{e.from, e.to} {
		if err := ic.Tune(params); err != nil {
			e.t.Fatal(err)
		}
	}
}

// move moves rows of 1000 bytes through a motion.
func (e *ends) move(rows int) {
	e.t.Helper()
	e.command++
	ctx := bounded(e.t)
	id := motion.ID{Session: 3, Command: e.command, SendSlice: 1}
	from, to := motion.Peer{Content: 0, Pid: 1, Addr: e.from.Addr()}, motion.Peer{Content: 1, Pid: 2, Addr: e.to.Addr()}
	r, err := e.to.Receive(ctx, id, to, []motion.Peer{from})
	if err != nil {
		e.t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		s, err := e.from.Send(ctx, id, from, []motion.Peer{to})
		for i := 0; i < rows && err == nil; i++ {
			err = s.Send(ctx, 0, make([]byte, 1000))
		}
		if err == nil {
			err = s.Close(ctx)
		}
		sent <- err
	}()
	n := 0
	for ; err == nil; n++ {
		_, _, err = r.Receive(ctx)
	}
	if n--; err != io.EOF || n != rows {
		e.t.Fatalf("%d of %d rows: %v", n, rows, err)
	}
	if err := errors.Join(<-sent, r.Close(ctx)); err != nil {
		e.t.Fatal(err)
	}
	e.from.EndStatement(id.Session, id.Command)
	e.to.EndStatement(id.Session, id.Command)
}

// TestLog: what each level of gp_log_interconnect and
// gp_interconnect_log_stats write, in each type that needs nobody else.
func TestLog(t *testing.T) {
	for _, typ := range []string{"udpifc", "tcp"} {
		e := newEnds(t, typ, nil)
		say := func(lines []string, what string) int {
			n := 0
			for _, l := range lines {
				if strings.Contains(l, what) {
					n++
				}
			}
			return n
		}
		stats := map[string]int{"udpifc": 2}[typ]
		for _, c := range []struct {
			level, stats              string
			opened, peers, statistics int
		}{
			{"off", "off", 0, 0, 0},
			{"terse", "off", 0, 0, 0},
			{"terse", "on", 0, 0, stats},
			{"verbose", "off", 2, 0, 0},
			{"debug", "off", 2, 2, stats},
		} {
			e.tune(map[string]string{guc.LogInterconnect: c.level, guc.LogStats: c.stats})
			e.move(10)
			lines := e.log.take()
			opened := say(lines, fmt.Sprintf("motion=con3,cmd%d,slice[1->0]", e.command))
			peers, statistics := say(lines, "peer="), say(lines, "interconnect statistics: ")
			if opened != c.opened || peers != c.peers || statistics != c.statistics {
				t.Errorf("%s, level %s, statistics %s: %d motions, %d with peers, %d statistics, want %+v\n%s",
					typ, c.level, c.stats, opened, peers, statistics, c, strings.Join(lines, "\n"))
			}
		}
		// A warning is for the client and, unless nothing is, for the log.
		for level, want := range map[string]int{"off": 0, "terse": 1} {
			var told []*motion.Error
			e.to.OnWarning(func(w *motion.Error) { told = append(told, w) })
			e.tune(map[string]string{guc.LogInterconnect: level, guc.LogStats: "off"})
			e.to.warning(&motion.Error{Code: "01000", Message: "mind the gap"})
			if n := say(e.log.take(), "mind the gap"); n != want || len(told) != 1 {
				t.Errorf("level %s: a warning was written %d times, told %d times", level, n, len(told))
			}
		}
	}
}

// TestPacketSize: gp_max_packet_size is fixed at connection start, and packets
// are as long as it says.
func TestPacketSize(t *testing.T) {
	const rows, chunk = 100, 1004 // of move, with the chunk's header
	for _, size := range []int{2048, 8192} {
		e := newEnds(t, "udpifc", map[string]string{guc.MaxPacketSize: fmt.Sprint(size)})
		e.tune(map[string]string{guc.MaxPacketSize: "512"})
		e.move(rows)
		n := int(e.from.Interconnect.(*udpifc.Interconnect).Stats().Data)
		if want := rows / ((size - icwire.UDPHeaderLen) / chunk); n < want || n > want+5 { // a packet may go before it is full
			t.Errorf("gp_max_packet_size = %d: %d packets, want %d or a few more", size, n, want)
		}
	}
}

// TestTuneLoss: a session's loss on purpose shows in the statistics, and ends
// when it is set back; with values that are wrong nothing changes.
func TestTuneLoss(t *testing.T) {
	e := newEnds(t, "udpifc", map[string]string{guc.QueueDepth: "8", guc.SndQueueDepth: "4"})
	again := func() int64 {
		before := e.from.Interconnect.(*udpifc.Interconnect).Stats()
		e.move(400)
		return e.from.Interconnect.(*udpifc.Interconnect).Stats().Since(before).Retransmitted
	}
	e.tune(map[string]string{guc.DropData: "30", guc.MinRTO: "5"})
	if n := again(); n < 5 {
		t.Errorf("30 %% lost: %d sent again", n)
	}
	e.tune(map[string]string{guc.MinRTO: "1s", guc.DefaultRTT: "1s"})
	if err := e.from.Tune(map[string]string{guc.DropData: "0", guc.QueueDepth: "0"}); err == nil {
		t.Error("a queue of 0 packets")
	}
	e.from.mu.Lock()
	lost := e.from.params[guc.DropData]
	e.from.mu.Unlock()
	if lost != "30" {
		t.Errorf("after a Tune that failed %s %% are lost", lost)
	}
	e.tune(map[string]string{guc.DropData: "0"})
	if n := again(); n != 0 {
		t.Errorf("nothing lost: %d sent again", n)
	}
}

// TestTypes: each type is what gp_interconnect_type says.
func TestTypes(t *testing.T) {
	p, _ := guc.Lookup(guc.InterconnectType)
	for _, typ := range p.Enum {
		ic, err := Interconnects{Dir: "/nonexistent"}.New(typ, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ic.Type() != typ || (ic.Addr() == "") != (typ == "proxy") {
			t.Errorf("%s: %s at %q", typ, ic.Type(), ic.Addr())
		}
		if err := ic.(*Interconnect).Tune(map[string]string{guc.SetupTimeout: "1", guc.InterconnectType: "smoke"}); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		_ = ic.Close()
	}
	_, err := Interconnects{}.New("smoke", nil)
	var me *motion.Error
	if !errors.As(err, &me) || me.Code != "22023" {
		t.Error(err)
	}
}

// TestCauseOfSilentProxy: a connection that was lost is not without a reason while
// the proxy, which would know it, is frozen.
func TestCauseOfSilentProxy(t *testing.T) {
	dir := datadir.Dir(t.TempDir())
	path := dir.ProxySocket()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	cause := Interconnects{Dir: dir}.cause()
	if why := cause(t.Context(), 3, true); !strings.Contains(why, "not running") {
		t.Errorf("without a proxy: %q", why)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for lost, want := range map[bool]string{true: "does not answer", false: ""} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if why := cause(ctx, 3, lost); !strings.Contains(why, want) || want == "" && why != "" {
			t.Errorf("lost %v: %q", lost, why)
		}
		cancel()
	}
}
