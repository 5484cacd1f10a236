package trunk

import "github.com/trunkline-db/trunkline/internal/iov"

// output is a batch on its way out. It belongs to whoever has set Trunk.writing.
type output struct {
	control []byte
	batch   []*Buffer
	size    int // bytes of both
	loaded  bool
	vec     iov.Vec // what is left to write

	try, push func(fd uintptr) bool
	err       error
}

func (o *output) init() {
	o.try = func(fd uintptr) bool {
		o.err = o.vec.Write(int(fd))
		return true
	}
	o.push = func(fd uintptr) bool {
		o.err = o.vec.Write(int(fd))
		return o.err != nil || o.vec.Len() == 0
	}
}

// load takes the next batch from the scheduler. It is called with Trunk.mu held.
func (o *output) load(s *scheduler) {
	o.control, s.control = s.control, o.control[:0]
	o.batch = s.collect(o.batch[:0])
	o.size, o.loaded = len(o.control), true
	o.vec.Add(o.control)
	for _, b := range o.batch {
		o.vec.Add(b.B)
		o.size += len(b.B)
	}
}

// release gives the memory of a batch back.
func (o *output) release() {
	for i, b := range o.batch {
		b.Release()
		o.batch[i] = nil
	}
	o.batch, o.loaded = o.batch[:0], false
	o.vec.Reset()
}

// Flush sends what is queued. The caller's goroutine writes it, as far as the
// kernel takes it at once, if nobody else is at it: that saves the way through
// another goroutine. The rest, and what comes meanwhile, is the writing
// goroutine's.
func (t *Trunk) Flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.writing || t.closed || t.sched.empty() {
		return
	}
	if t.conn == nil {
		t.hand()
		return
	}
	t.writing = true
	o := &t.out
	o.load(&t.sched)
	t.mu.Unlock()
	err := t.raw.Write(o.try)
	t.mu.Lock()
	if err == nil {
		err = o.err
	}
	switch {
	case err != nil || t.closed:
		t.done()
		// The reader sees it too; whoever is first ends the trunk.
		t.mu.Unlock()
		t.stop(err)
		t.mu.Lock()
	case o.vec.Len() > 0:
		t.hand()
	default:
		t.sent()
		t.writing = false
		if !t.sched.empty() {
			t.hand()
		}
	}
}

// hand leaves the writing to the writing goroutine.
func (t *Trunk) hand() {
	t.writing, t.handed = true, true
	t.ready.Broadcast()
}

// sent counts and releases a batch that has been written.
func (t *Trunk) sent() {
	o := &t.out
	t.packets[1].Add(uint64(len(o.batch) + len(o.control)/t.dialect.HeaderLen()))
	t.bytes[1].Add(uint64(o.size))
	o.release()
}

// write is the writing goroutine: whenever the writing is handed to it, it
// gives one batch after the other to out until nothing is left.
func (t *Trunk) write(out func(*output) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		for !t.handed && !t.closed {
			t.ready.Wait()
		}
		if !t.handed {
			return ErrClosed
		}
		for !t.closed {
			o := &t.out
			if !o.loaded {
				if t.sched.empty() {
					break
				}
				o.load(&t.sched)
			}
			t.mu.Unlock()
			err := out(o)
			t.mu.Lock()
			if err != nil {
				t.done()
				return err
			}
			t.sent()
		}
		t.done()
	}
}

// done ends the turn of whoever writes.
func (t *Trunk) done() {
	t.out.release()
	t.writing, t.handed = false, false
	t.ready.Broadcast()
}

// send writes a batch, waiting for the kernel to take it.
func (t *Trunk) send(o *output) error {
	if err := t.raw.Write(o.push); err != nil {
		return err
	}
	return o.err
}
