package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
)

// unixListener is a listening unix socket that replaces whatever is at its
// path and goes away with its file.
type unixListener struct {
	*local.Listener
	path string
	file os.FileInfo // to tell our file from one that replaced it
}

// listenUnix makes a socket of mode 0700 at path. It comes to its name in one
// step, so that nobody finds it half made.
func listenUnix(path string) (*unixListener, error) {
	// Nobody else's file is in the way of a name nobody can foresee.
	temp := fmt.Sprintf("%s.%d.%x", path, os.Getpid(), time.Now().UnixNano()&0xffffff)
	l, err := local.Listen(temp)
	if err != nil {
		return nil, err
	}
	u := &unixListener{Listener: l, path: path}
	err = os.Chmod(temp, 0o700)
	if err == nil {
		u.file, err = os.Lstat(temp)
	}
	if err == nil {
		if err = os.Rename(temp, path); err != nil {
			err = notOurs(path, err)
		}
	}
	if err != nil {
		l.Close()
		os.Remove(temp)
		return nil, err
	}
	return u, nil
}

// notOurs adds to err whose the file at path is, if it is another user's. In
// /tmp nobody can replace it then.
func notOurs(path string, err error) error {
	fi, serr := os.Lstat(path)
	if serr != nil {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("the file there belongs to user id %d and has to be removed: %w", st.Uid, err)
	}
	return err
}

// there says whether the file is still the listener's.
func (u *unixListener) there() (ours, any bool) {
	fi, err := os.Lstat(u.path)
	return err == nil && os.SameFile(fi, u.file), err == nil
}

func (u *unixListener) close() {
	if ours, _ := u.there(); ours {
		os.Remove(u.path)
	}
	u.Close()
}

// allowed says whether the process at the other end runs as our user or root.
func allowed(c *local.Conn) error {
	u, err := c.User()
	if err != nil {
		return fmt.Errorf("peer credentials: %w", err)
	}
	if u.Uid != 0 && int(u.Uid) != ownUser {
		return fmt.Errorf("process %d runs as user id %d, not as %d", u.Pid, u.Uid, ownUser)
	}
	return nil
}

var ownUser = os.Geteuid()

// accept hands each connection of u to serve, which owns it and must not wait,
// until u is closed.
func (p *Proxy) accept(ctx context.Context, u *unixListener, serve func(*local.Conn)) {
	for {
		c, err := u.Accept()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			if !p.acceptFailed(ctx, u.path, err) {
				return
			}
			continue
		}
		if err := allowed(c); err != nil {
			p.rejections[rejUser].Add(1)
			p.log.limited("refused user", slog.LevelWarn, "refused a connection", "socket", u.path, "reason", err.Error())
			c.Close()
			continue
		}
		serve(c)
	}
}

// serveBackend takes a backend from its hello to its end, or to the moment
// from which somebody else serves it. Most backends have said hello by the time
// they are accepted; then nobody else has to be woken for it.
func (p *Proxy) serveBackend(ctx context.Context, c *local.Conn) {
	var first helloSoFar
	h, d, err := first.read(c)
	switch {
	case err == unix.EAGAIN:
		p.wg.Go(func() { p.awaitHello(ctx, c, &first) })
	case err != nil:
		c.Close()
		p.noBackend(ctx, err)
	case h.Type == icwire.Whole:
		p.wg.Go(func() { p.serveWholes(ctx, c, h, d) })
	case h.Type == icwire.Wait:
		p.wg.Go(func() { p.serveWaits(ctx, c, h, d) })
	default:
		if run := p.welcome(c, h, d); run != nil && !run.serveShort() {
			p.wg.Go(run.serve)
		}
	}
}

// awaitHello is serveBackend for one that has not said all of its hello.
func (p *Proxy) awaitHello(ctx context.Context, c *local.Conn, first *helloSoFar) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	st := p.locals.add(c)
	_ = c.SetDeadline(time.Now().Add(p.times().HelloTimeout)) // fails if closed; so will the read
	h, d, err := readBackend(io.MultiReader(bytes.NewReader(first.buf[:first.n]), c))
	stop()
	if p.locals.remove(st) {
		err = errCrowded
	}
	if err != nil {
		c.Close()
		p.noBackend(ctx, err)
		return
	}
	_ = c.SetDeadline(time.Time{})
	switch h.Type {
	case icwire.Whole:
		p.serveWholes(ctx, c, h, d)
	case icwire.Wait:
		p.serveWaits(ctx, c, h, d)
	default:
		if run := p.welcome(c, h, d); run != nil {
			run.serve()
		}
	}
}

// readBackend reads what a backend begins with: HELLO or WAIT, or the header of
// WHOLE.
func readBackend(r io.Reader) (h icwire.Header, d icwire.Dialect, err error) {
	h, d, err = readHead(r)
	switch {
	case err != nil:
	case (h.Type == icwire.Whole || h.Type == icwire.Wait) && d == icwire.Magic36:
	case h.Type != icwire.Hello || int(h.Len) != d.HeaderLen():
		err = unexpected(icwire.Hello, h)
	}
	return h, d, err
}

// noBackend takes note of a connection that was closed as it said no hello.
func (p *Proxy) noBackend(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if kind, why, ok := p.reject(noHello(err), p.times().HelloTimeout); ok {
		p.log.limited("no hello "+rejectionNames[kind], slog.LevelWarn, "closed a connection of the backends' socket", "reason", why)
	}
}

// helloSoFar is what has come of a backend's hello.
type helloSoFar struct {
	buf [icwire.MaxHeaderLen]byte
	n   int
}

// read takes what is there, and no byte behind the hello; unix.EAGAIN says that
// it is not all there yet.
func (f *helloSoFar) read(c *local.Conn) (h icwire.Header, d icwire.Dialect, err error) {
	for want := icwire.MinHeaderLen; ; {
		k, err := c.TryRead(f.buf[f.n:want])
		if f.n += k; err != nil {
			return h, d, err
		}
		if k > 0 && f.n < want {
			return h, d, unix.EAGAIN
		}
		h, d, err = readBackend(bytes.NewReader(f.buf[:f.n]))
		if err != io.ErrUnexpectedEOF || k == 0 || want == icwire.MaxHeaderLen {
			return h, d, err
		}
		want = icwire.MaxHeaderLen
	}
}

// welcome finds a backend that has said hello its peer. The result is to be
// served; nil if it needs nothing more here.
func (p *Proxy) welcome(c *local.Conn, h icwire.Header, d icwire.Dialect) *conn {
	var run *conn
	pr, why := p.route(h, d)
	if why == "" {
		run, why = pr.register(c, h, d)
	}
	if why == "" {
		if run == nil || !run.answer() {
			return nil
		}
		return run
	}
	p.refused.Add(1)
	p.log.limited("backend refused", slog.LevelWarn, "a backend was refused", "connection", h.SrcKey().String(), "reason", why)
	if p.cfg.AckRefused {
		_, _ = c.Write(h.HelloAck().Append(nil, d))
	}
	c.End()
	p.ended.Add(c)
	p.ended.Trim()
	return nil
}

// route finds the peer a backend wants, or says why it cannot be served.
func (p *Proxy) route(h icwire.Header, d icwire.Dialect) (*peer, string) {
	if h.SrcDbid != p.dbid {
		return nil, fmt.Sprintf("the backend says its dbid is %d, this is the proxy of %s", h.SrcDbid, p.label)
	}
	if err := p.learn(d, true); err != nil {
		return nil, err.Error()
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if why := p.unfit(); why != "" {
		return nil, why
	}
	pr := p.peers[h.DstDbid]
	switch {
	case pr == nil:
		return nil, fmt.Sprintf("dbid %d is not in the address list of the proxy of %s", h.DstDbid, p.label)
	case pr.role == NoDial:
		return nil, pr.cause()
	}
	return pr, ""
}

// followPostmaster gives the backends' socket the name by which they look for
// it, which changes with the postmaster's process id. It is called often, so it
// also looks after those who say nothing and those who have gone.
func (p *Proxy) followPostmaster(ctx context.Context) {
	p.callers.look()
	p.locals.look()
	p.ended.Flush()
	port, pid, err := p.cfg.Source.Postmaster()
	if err != nil {
		p.log.limited("postmaster", slog.LevelDebug, "no postmaster", "error", err)
		p.setServer(0, err.Error())
		return
	}
	p.setServer(pid, "")
	path := filepath.Join(p.cfg.SocketDir, filepath.Base(datadir.ICProxySocket(port, pid)))
	p.mu.RLock()
	old := p.socket
	p.mu.RUnlock()
	if old != nil && old.path == path {
		ours, other := old.there()
		if ours {
			return
		}
		switch {
		case !other:
		case p.cfg.TakeOver:
			p.log.limited("taken back", slog.LevelWarn, "the backends' socket was replaced, as Greenplum's proxy does when it starts; taking it back", "socket", path)
		default:
			p.log.limited("taken over", slog.LevelError, "another proxy has taken over the backends' socket", "socket", path)
			p.setSocketError("another proxy has taken it over")
			return
		}
	}
	u, err := listenUnix(path)
	if err != nil {
		p.log.limited("socket", slog.LevelError, "cannot make the backends' socket", "socket", path, "error", err)
		p.setSocketError(reason(err))
		return
	}
	p.log.Info("listening to backends", "socket", path)
	p.wg.Go(func() {
		p.accept(ctx, u, func(c *local.Conn) { p.serveBackend(ctx, c) })
	})
	p.mu.Lock()
	p.socket, p.socketErr = u, ""
	p.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// setServer takes note of the postmaster, or that there is none.
func (p *Proxy) setServer(pid int, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server, p.serverErr = pid, why
}

func (p *Proxy) setSocketError(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.socketErr = why
}
