package proxybench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/proxy"
)

// Probe runs the proxy of a data directory until ctx ends, and prints for each
// line it reads how many objects the process has put on its heap so far. This
// is what mode steady has to know and a proxy does not say.
func Probe(ctx context.Context, dir datadir.Dir, dialect proxy.Dialect, in io.Reader, out io.Writer) error {
	cfg, err := proxy.ConfigFor(dir)
	if err != nil {
		return err
	}
	cfg.Dialect = dialect
	p, err := proxy.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the standard input, at the latest with the process
		defer cancel()
		for s := bufio.NewScanner(in); s.Scan(); {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Fprintln(out, m.Mallocs)
		}
	}()
	return p.Run(ctx)
}

// mallocs asks a probe.
func (c *child) mallocs(ctx context.Context) (float64, error) {
	if _, err := io.WriteString(c.stdin, "\n"); err != nil {
		return 0, c.failed(err.Error())
	}
	s, err := c.line(ctx)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(s, 64)
}

// steady counts the heap allocations of two proxies while streams run.
func (b *bench) steady(ctx context.Context, streams, size int, sc scale) error {
	ends, children, err := b.startProxies(ctx, "probe", probeWord)
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range children {
			c.stop()
		}
	}()
	p, err := newProxyPath(b.socks, ends, b.opt.Dialect)
	if err != nil {
		return err
	}
	pat := newPattern(size)
	f, err := startFlow(p, pat, streams)
	if err != nil {
		return err
	}
	all := func() (sum float64, err error) {
		for _, c := range children {
			n, err := c.mallocs(ctx)
			if err != nil {
				return 0, err
			}
			sum += n
		}
		return sum, nil
	}
	res := Result{Mode: "steady", Label: label(streams, size), Streams: streams, Size: size}
	err = b.rounds(ctx, res, []path{p}, sc.rounds, func(path) (Figures, error) {
		if err := f.sleep(ctx, warmUp); err != nil {
			return nil, err
		}
		n0, err1 := all()
		bytes0 := f.bytes()
		err2 := f.sleep(ctx, sc.time)
		for until := time.Now().Add(patience); err2 == nil && f.bytes() == bytes0 && time.Now().Before(until); {
			err2 = f.sleep(ctx, time.Millisecond)
		}
		bytes1 := f.bytes()
		n1, err3 := all()
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		if bytes1 == bytes0 {
			return nil, fmt.Errorf("no byte came out of %d streams", streams)
		}
		return Figures{Allocs: (n1 - n0) / (float64(bytes1-bytes0) / float64(size))}, nil
	})
	if e := f.end(); e != nil {
		err = e
	}
	return err
}
