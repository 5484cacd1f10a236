package instance

import (
	"context"
	"log/slog"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
)

// proxyStopTimeout is how long a proxy may take to say goodbye to its peers.
const proxyStopTimeout = 5 * time.Second

// proxyKeeper keeps `trunkline proxy -D dir` running.
type proxyKeeper struct {
	dir     datadir.Dir
	binary  string
	env     []string
	spawn   *spawner
	log     *slog.Logger
	onState func(pid int, s State)

	mu      sync.Mutex
	cur     *child
	reloads int // so far
}

// keep starts the proxy, and again when it ends, until ctx is done.
func (p *proxyKeeper) keep(ctx context.Context) {
	defer p.onState(0, Down)
	for n := 1; ; n++ {
		began := time.Now()
		c, err := p.start(ctx)
		if err == nil {
			p.onState(c.pid, Ready)
			select {
			case <-c.exited:
			case <-ctx.Done():
				p.onState(c.pid, Stopping)
				p.stop(c)
				return
			}
			p.log.Error("proxy ended; starting it again", "pid", c.pid, "err", c.reason())
		} else {
			p.log.Error("proxy does not start", "binary", p.binary, "err", err)
		}
		p.onState(0, Down)
		if time.Since(began) > settled {
			n = 1
		}
		if !sleep(ctx, restartBackoff(n)) {
			return
		}
	}
}

func (p *proxyKeeper) start(ctx context.Context) (*child, error) {
	if err := killProxies(ctx, p.dir); err != nil {
		return nil, err
	}
	out, err := openLog(p.dir, "proxy.log")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(p.binary, "proxy", "-D", string(p.dir))
	cmd.Env, cmd.Dir = p.env, string(p.dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.mu.Lock()
	before := p.reloads
	p.mu.Unlock()
	c, err := p.spawn.start(cmd, syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.cur = c
	missed := p.reloads > before // it may have read the files before they changed
	p.mu.Unlock()
	if missed {
		c.signal(syscall.SIGHUP)
	}
	return c, nil
}

// reload has the running proxy read its configuration and the postmaster's
// pid again. A proxy so young that it does not handle SIGHUP yet dies of it,
// and its successor reads the new files.
func (p *proxyKeeper) reload() {
	p.mu.Lock()
	c := p.cur
	p.reloads++
	p.mu.Unlock()
	if c != nil {
		c.signal(syscall.SIGHUP)
	}
}

func (p *proxyKeeper) stop(c *child) {
	c.signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(proxyStopTimeout):
		p.log.Warn("proxy does not end; killing it", "pid", c.pid)
		c.signal(syscall.SIGKILL)
		<-c.exited
	}
}
