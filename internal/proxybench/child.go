package proxybench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/internal/freeport"
	"github.com/trunkline-db/trunkline/internal/testkit/wan"
	"github.com/trunkline-db/trunkline/proxy"
	"github.com/trunkline-db/trunkline/topology"
)

// startTime bounds how long children may take to come up.
const startTime = 15 * time.Second

// child is a process of the run's own.
type child struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	log   string        // file of its standard error
	done  chan struct{} // closed when it has been waited for

	stopped bool // by us
}

// start runs a command of this program, in host if there is one. A child ends with the run: its
// standard input does, and the kernel sees to it should the run be killed.
func (b *bench) start(name string, host *wan.Host, args ...string) (*child, error) {
	c := &child{name: name, cmd: b.opt.Command(args...), log: filepath.Join(b.dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(c.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.cmd.Stderr = log
	// Not in our process group: Ctrl-C is for us, who end them.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// A pipe of our own, as Wait would close StdoutPipe's under the reader.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	c.cmd.Stdout = w
	c.out = bufio.NewReader(r)
	run := c.cmd.Start
	if host != nil {
		c.cmd.SysProcAttr.Pdeathsig = 0 // it would follow the thread that is in the host
		run = func() error { return host.Start(c.cmd) }
	}
	if err := run(); err != nil {
		r.Close()
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	go func() {
		_ = c.cmd.Wait() // how it ended is in its log, if at all
		close(c.done)
	}()
	b.children = append(b.children, c)
	b.cleanup = append(b.cleanup, func() {
		c.stop()
		r.Close()
	})
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// stop ends the child and waits for it.
func (c *child) stop() {
	c.stopped = true
	c.stdin.Close()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = c.cmd.Process.Signal(s)
		select {
		case <-c.done:
			return
		case <-time.After(5 * time.Second):
		}
	}
}

// failed says why a child is of no use, with the end of its log.
func (c *child) failed(why string) error {
	b, _ := os.ReadFile(c.log)
	b = bytes.TrimSpace(b)
	if len(b) > 1000 {
		b = b[len(b)-1000:]
	}
	name := strings.Join(c.cmd.Args[1:], " ")
	if len(b) == 0 {
		return fmt.Errorf("%s: %s", name, why)
	}
	return fmt.Errorf("%s: %s:\n%s", name, why, b)
}

// logTime is how long children have to write down what they have just noticed.
const logTime = 300 * time.Millisecond

// explain adds to what has gone wrong in the middle of a run what the children
// have complained about, each in its last few lines, and which of them has
// ended.
func (b *bench) explain(err error) error {
	const most = 5
	time.Sleep(logTime)
	for _, c := range b.children {
		log, rerr := os.ReadFile(c.log)
		if rerr != nil {
			continue
		}
		var lines []string
		for l := range strings.Lines(string(log)) {
			if l = strings.TrimSpace(l); l != "" && !strings.Contains(l, "level=INFO") && !strings.Contains(l, " INFO ") {
				lines = append(lines, l)
			}
		}
		lines = lines[max(0, len(lines)-most):]
		select {
		case <-c.done:
			if !c.stopped {
				lines = append(lines, "(the process has ended)")
			}
		default:
		}
		if len(lines) > 0 {
			err = fmt.Errorf("%w\n%s: %s", err, c.name, strings.Join(lines, "\n  "))
		}
	}
	return err
}

// First words of the arguments that Options.Command gets. What follows are for
// a relay its kind, where it listens and where it connects, for the two others
// "-D DIR --dialect NAME".
const (
	proxyWord = "proxy" // the command of that name
	relayWord = "relay" // calls Relay
	probeWord = "probe" // calls Probe
)

// startPump starts the two relays of a byte pump.
func (b *bench) startPump(ctx context.Context, kind, name string) (*pumpPath, error) {
	p := &pumpPath{socks: b.socks, as: name, first: filepath.Join(b.dir, kind+".in")}
	out := filepath.Join(b.dir, kind+".out")
	var err error
	if p.listen, err = listenUnix(out); err != nil {
		return nil, err
	}
	b.cleanup = append(b.cleanup, func() { syscall.Close(p.listen) })
	addr := ""
	for i, r := range [2][3]string{
		{kind + "2", "tcp:" + b.address(0) + ":0", "unix:" + out},
		{kind + "1", "unix:" + p.first, "tcp:"},
	} {
		c, err := b.start(r[0], b.host(i), relayWord, kind, r[1], r[2]+addr)
		if err != nil {
			return nil, err
		}
		if addr, err = c.line(ctx); err != nil {
			return nil, err
		}
		p.ids = append(p.ids, c.pid())
	}
	return p, nil
}

// line waits for the next line a child prints.
func (c *child) line(ctx context.Context) (string, error) {
	type answer struct {
		s   string
		err error
	}
	got := make(chan answer, 1)
	go func() { // ends at the latest when the child does
		s, err := c.out.ReadString('\n')
		got <- answer{strings.TrimSpace(s), err}
	}()
	select {
	case a := <-got:
		if a.err != nil {
			return "", c.failed("ended early")
		}
		return a.s, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(startTime):
		return "", c.failed(fmt.Sprintf("has not said anything in %v", startTime))
	}
}

// startProxies starts two of our proxies on data directories that hold just
// what a proxy reads. word is the command.
func (b *bench) startProxies(ctx context.Context, name string, word string) ([]Endpoint, []*child, error) {
	var list topology.AddressList
	for i := range 2 {
		port, err := freeport.One()
		if err != nil {
			return nil, nil, err
		}
		list = append(list, topology.Entry{Dbid: uint16(i + 1), Content: int16(i - 1), Host: b.address(i), Port: port})
	}
	var ends []Endpoint
	var children []*child
	for i, e := range list {
		dir := datadir.Dir(filepath.Join(b.dir, fmt.Sprintf("%s%d", name, e.Dbid)))
		if err := os.Mkdir(string(dir), 0o700); err != nil {
			return nil, nil, err
		}
		port, err := freeport.One()
		if err != nil {
			return nil, nil, err
		}
		for file, text := range map[string]string{
			dir.InternalAutoConf(): fmt.Sprintf("gp_dbid=%d\n", e.Dbid),
			dir.Conf():             fmt.Sprintf("gp_contentid=%d\ngp_interconnect_proxy_addresses='%s'\n", e.Content, list),
			dir.PostmasterPid():    fmt.Sprintf("%d\n%s\n%d\n%d\n", os.Getpid(), dir, time.Now().Unix(), port),
		} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				return nil, nil, err
			}
		}
		socket := datadir.ICProxySocket(port, os.Getpid())
		c, err := b.start(fmt.Sprintf("%s%d", name, e.Dbid), b.host(i), word, "-D", string(dir), "--dialect", b.opt.Dialect.String())
		if err != nil {
			return nil, nil, err
		}
		b.cleanup = append(b.cleanup, func() { os.Remove(socket) }) // should it have been killed
		children = append(children, c)
		ends = append(ends, Endpoint{Content: e.Content, Dbid: e.Dbid, Socket: socket})
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for i, c := range children {
		if err := c.untilConnected(ctx, datadir.Dir(filepath.Join(b.dir, fmt.Sprintf("%s%d", name, i+1)))); err != nil {
			return nil, nil, err
		}
	}
	return ends, children, nil
}

// untilConnected waits until a proxy of ours has its peer.
func (c *child) untilConnected(ctx context.Context, dir datadir.Dir) error {
	for {
		s, err := proxy.ReadStatus(ctx, dir.ProxySocket())
		if err == nil && s.Socket != "" && s.Healthy() {
			return nil
		}
		select {
		case <-c.done:
			return c.failed("ended early")
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return c.failed(fmt.Sprintf("is not connected with its peer after %v", startTime))
			}
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}
