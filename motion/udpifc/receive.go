package udpifc

import (
	"context"
	"errors"
	"io"
)

// Receive implements motion.Receiver. When it fails because of one stream,
// packets of others may not have been returned yet.
func (r *receiver) Receive(ctx context.Context) (tuple []byte, from int, err error) {
	for {
		if c := r.cur; c != nil {
			tuple, ok, err := r.next(c)
			if ok {
				return tuple, c.index, nil
			}
			if err != nil {
				return nil, 0, err
			}
			r.cur = nil
		}
		if r.mixed && r.gather() {
			continue
		}
		if err := r.ended(ctx); err != nil {
			return nil, 0, err
		}
		r.mu.Lock()
		for r.cur == nil && len(r.ready) > 0 {
			c := r.ready[0]
			r.ready[0] = nil
			r.ready = r.ready[1:]
			c.queued = false
			if r.load(c) {
				r.cur = c
			}
		}
		r.mu.Unlock()
		if r.cur == nil {
			if err := r.want(ctx, nil); err != nil {
				return nil, 0, err
			}
		}
	}
}

// ReceiveFrom implements motion.Receiver.
func (r *receiver) ReceiveFrom(ctx context.Context, sender int) ([]byte, error) {
	c := r.conns[sender]
	r.mixed = true
	for {
		if c.packet != nil {
			tuple, ok, err := r.next(c)
			if ok {
				return tuple, nil
			}
			if err != nil {
				return nil, err
			}
		}
		if c.finished {
			return nil, io.EOF
		}
		r.mu.Lock()
		loaded, stopped, failed := r.load(c), r.stopped, r.failed
		r.mu.Unlock()
		switch {
		case loaded:
			continue
		case failed != nil:
			return nil, failed
		case stopped || r.closed:
			return nil, io.EOF
		}
		if err := r.want(ctx, c); err != nil {
			return nil, err
		}
	}
}

// load takes a connection's next packet for the consumer. Under the mutex.
func (r *receiver) load(c *inConn) bool {
	b := c.link.Next()
	if b == nil {
		return false
	}
	c.unpacker.load(b)
	return true
}

// next returns the next tuple of the packet that is loaded. When it is used up
// it is acknowledged, and ok is false.
func (r *receiver) next(c *inConn) (tuple []byte, ok bool, err error) {
	tuple, ok, err = c.unpacker.next()
	if err != nil {
		r.fail(err)
		return nil, false, r.err()
	}
	if ok {
		return tuple, true, nil
	}
	r.mu.Lock()
	r.reply(c, c.link.Consumed())
	if c.link.Ready() {
		r.push(c)
	}
	r.mu.Unlock()
	r.ic.recycle(c.packet)
	c.packet = nil
	if c.eos && !c.finished {
		c.finished = true
		r.open--
	}
	return nil, false, nil
}

// gather makes a stream current whose packet ReceiveFrom has left half used.
func (r *receiver) gather() bool {
	for _, c := range r.conns {
		if c.packet != nil {
			r.cur = c
			return true
		}
	}
	r.mixed = false
	return false
}

func (r *receiver) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// ended is why Receive cannot go on: io.EOF, a failure, the end of ctx, or
// nil.
func (r *receiver) ended(ctx context.Context) error {
	if r.open == 0 {
		return io.EOF
	}
	r.mu.Lock()
	failed, stopped := r.failed, r.stopped
	r.mu.Unlock()
	switch {
	case failed != nil:
		return failed
	case stopped || r.closed:
		return io.EOF
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil
}

// want waits until the receiver may have something for the consumer, of
// connection c if it is not nil.
func (r *receiver) want(ctx context.Context, c *inConn) error {
	select {
	case <-r.wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.done:
	}
	// All that will come has come, or nothing will.
	r.mu.Lock()
	err := r.failed
	none := len(r.ready) == 0
	if c != nil {
		none = !c.link.Ready()
	}
	stopped := r.stopped
	r.mu.Unlock()
	if err == nil && none && !stopped {
		r.fail(parseError(errors.New("the last packet of a stream does not end it"), 0))
		err = r.err()
	}
	return err
}
