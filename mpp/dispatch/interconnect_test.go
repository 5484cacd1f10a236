package dispatch

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/mpp/execute"
	"github.com/trunkline-db/trunkline/mpp/execute/executetest"
	"github.com/trunkline-db/trunkline/proxy"
	"github.com/trunkline-db/trunkline/topology"
)

// icCluster runs executors with the built-in interconnects.
type icCluster struct {
	*Dispatcher
	ic   motion.Interconnect
	self motion.Peer
	cmd  uint32
}

func newICCluster(t testing.TB, typ string) *icCluster {
	ic, err := execute.Interconnects{Dir: shared.coord.Dir}.New(typ, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &icCluster{ic: ic, self: motion.Peer{Content: -1, Dbid: 1, Pid: 7, Addr: ic.Addr()}}
	segs := make([]Segment, nsegs)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, nsegs)
	for i := range segs {
		segs[i] = Segment{Content: int16(i), Dbid: uint16(i + 2), Dir: shared.segs[i].Dir, Address: fmt.Sprintf("127.0.0.1:%d", shared.segs[i].Port)}
		l, err := executetest.Listen(segs[i].Dir)
		if err != nil {
			t.Fatal(err)
		}
		s := execute.NewServer(execute.Config{Dir: segs[i].Dir, Content: int16(i), Dbid: uint16(i + 2), Port: shared.segs[i].Port})
		go func() {
			_ = s.Serve(ctx, l)
			done <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for range segs {
			<-done
		}
		_ = ic.Close()
	})
	c.Dispatcher = New(Config{Segments: func() []Segment { return segs }, Coordinator: shared.coord.Dir})
	return c
}

// gather counts the rows of a slice and their bytes.
func (c *icCluster) gather(ctx context.Context, g *Gang, s Slice, limit int) (rows, size int, err error) {
	c.cmd++
	r, err := g.Open(ctx, c.cmd, []Slice{s}, &Run{Slice: 1, Receivers: []motion.Peer{c.self}})
	if err != nil {
		return 0, 0, err
	}
	recv, err := c.ic.Receive(r.Context(), motion.ID{Session: g.cfg.SessionID, Command: c.cmd, SendSlice: 1}, c.self, r.Senders(1))
	if err != nil {
		r.Cancel()
		_ = r.Finish(ctx)
		return 0, 0, err
	}
	for rows != limit {
		b, _, err := recv.Receive(r.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			recv.Abort()
			if ferr := r.Finish(ctx); ferr != nil {
				err = ferr
			}
			return rows, size, err
		}
		rows++
		size += len(b)
	}
	if rows == limit {
		recv.Stop()
	}
	if err := recv.Close(ctx); err != nil {
		return rows, size, err
	}
	return rows, size, r.Finish(ctx)
}

func (c *icCluster) gang(t testing.TB, typ string) *Gang {
	g := c.NewGang(GangConfig{SessionID: 5, User: "gpadmin", Database: "postgres", InterconnectType: typ})
	t.Cleanup(g.Close)
	return g
}

// startProxies runs a proxy for each instance and returns how to stop one.
func startProxies(t *testing.T) (stop [nsegs + 1]func()) {
	var list topology.AddressList
	dirs := []datadir.Dir{shared.coord.Dir}
	for _, s := range shared.segs {
		dirs = append(dirs, s.Dir)
	}
	for i := range dirs {
		port, err := freeport.One()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, topology.Entry{Dbid: uint16(i + 1), Content: int16(i - 1), Host: "127.0.0.1", Port: port})
	}
	for i, dir := range dirs {
		p, err := proxy.New(proxy.Config{
			Source: proxy.Source{
				Facts: func() (proxy.Facts, error) {
					return proxy.Facts{Dbid: list[i].Dbid, Content: list[i].Content, Addresses: list}, nil
				},
				Postmaster: proxy.DataDir(dir).Postmaster,
			},
			Log: slog.New(slog.DiscardHandler), StatusSocket: dir.ProxySocket(), AckRefused: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		stop[i] = func() {
			cancel()
			<-done
		}
		t.Cleanup(stop[i])
	}
	return stop
}

func TestInterconnects(t *testing.T) {
	for _, typ := range []string{"udpifc", "tcp", "proxy"} {
		t.Run(typ, func(t *testing.T) { testInterconnect(t, typ) })
	}
}

func testInterconnect(t *testing.T, typ string) {
	var stop [nsegs + 1]func()
	if typ == "proxy" {
		stop = startProxies(t)
	}
	c := newICCluster(t, typ)
	g := c.gang(t, typ)
	for _, tx := range []bool{false, true} {
		if tx {
			if err := g.Begin(testContext(t), ""); err != nil {
				t.Fatal(err)
			}
		}
		n, _, err := c.gather(testContext(t), g, Slice{Index: 1, SQL: "SELECT i FROM generate_series(1, 100000) i"}, -1)
		if n != nsegs*100000 || err != nil {
			t.Fatalf("%d rows, %v", n, err)
		}
		n, _, err = c.gather(testContext(t), g, Slice{Index: 1, SQL: "SELECT i FROM generate_series(1, 3000000) i"}, 10)
		if n != 10 || err != nil {
			t.Fatalf("stopped: %d rows, %v", n, err)
		}
		n, _, err = c.gather(testContext(t), g, Slice{Index: 1, SQL: "SELECT repeat('x', 300000) FROM generate_series(1, 10) i"}, -1)
		if n != nsegs*10 || err != nil {
			t.Fatalf("%d long rows, %v", n, err)
		}
	}
	if _, _, err := c.gather(testContext(t), g, Slice{Index: 1, SQL: "SELECT 1/(i-50000) FROM generate_series(1, 100000) i"}, -1); code(err) != "22012" {
		t.Errorf("got %v", err)
	}
	if typ != "proxy" {
		return
	}
	_ = g.Rollback(testContext(t))
	stop[2]() // seg1's
	start := time.Now()
	_, _, err := c.gather(testContext(t), g, Slice{Index: 1, SQL: "SELECT 1"}, -1)
	if code(err) != motion.CodeInterconnect {
		t.Errorf("without a proxy: %v", err)
	}
	t.Logf("after %v: %v", time.Since(start).Round(time.Millisecond), err)
	exec(t, g, nil, "SELECT 1")
}

// TestUnknownInterconnect: an executor without an interconnect runs what needs
// none.
func TestUnknownInterconnect(t *testing.T) {
	c := newICCluster(t, "tcp")
	g := c.gang(t, "smoke")
	exec(t, g, nil, "SELECT 1")
	_, _, err := c.gather(testContext(t), g, Slice{Index: 1, SQL: "SELECT 1"}, -1)
	if code(err) != "22023" {
		t.Errorf("got %v", err)
	}
	exec(t, g, nil, "SELECT 1")
}

func BenchmarkShortQuery(b *testing.B) {
	for _, segs := range [][]int{{1}, nil} {
		b.Run(fmt.Sprintf("segments=%v", segs), func(b *testing.B) {
			c := newICCluster(b, "tcp")
			g := c.gang(b, "tcp")
			for b.Loop() {
				if n, _, err := c.gather(context.Background(), g, Slice{Index: 1, SQL: "SELECT 1", Segments: segs}, -1); n == 0 || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkExec(b *testing.B) {
	for _, segs := range [][]int{{1}, nil} {
		b.Run(fmt.Sprintf("segments=%v", segs), func(b *testing.B) {
			c := newICCluster(b, "tcp")
			g := c.gang(b, "tcp")
			for b.Loop() {
				if _, err := g.Exec(context.Background(), segs, "SELECT 1"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGather(b *testing.B) {
	for _, fixed := range []int{4, 100} {
		b.Run(fmt.Sprintf("row=%d", fixed), func(b *testing.B) {
			c := newICCluster(b, "tcp")
			g := c.gang(b, "tcp")
			sql := "SELECT i FROM generate_series(1, 300000) i"
			if fixed > 4 {
				sql = fmt.Sprintf("SELECT repeat('x', %d) FROM generate_series(1, 300000) i", fixed)
			}
			var rows, size int
			for b.Loop() {
				n, s, err := c.gather(context.Background(), g, Slice{Index: 1, SQL: sql, ResultFormats: []int16{1}}, -1)
				if err != nil {
					b.Fatal(err)
				}
				rows, size = rows+n, size+s
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(size)/b.Elapsed().Seconds()/1e6, "MB/s")
		})
	}
}
