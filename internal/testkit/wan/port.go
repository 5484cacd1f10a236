package wan

import (
	"errors"
	"os"
	"sync"
	"time"
)

const (
	// grain is the least time between two wake-ups of a port, see "Precision".
	grain = 200 * time.Microsecond
	// maxUnderWay bounds the memory of the packets on their way to one host,
	// which a link without rate would not.
	maxUnderWay = 256 << 20
	batchSize   = 64
	// lateAfter is from when on a packet counts as late.
	lateAfter = time.Millisecond
)

// Counters are the packets and the bytes (of IP packets, headers included) of
// one direction since New. Sent is what the sending host handed over; a
// packet that is sent is carried, dropped for one of the reasons, or still
// under way.
type Counters struct {
	Sent, SentBytes       uint64
	Carried, CarriedBytes uint64 // handed to the receiving host, duplicates included
	Lost                  uint64 // by Link.Loss
	QueueFull             uint64 // by Link.Queue, or for want of memory (256 MB on the way to a host)
	CutOff                uint64 // sent while the link was cut, or under way when it was
	Refused               uint64 // the receiving host's device did not take it
	Duplicated            uint64
	HeldBack              uint64 // by Link.Reorder
	// Late are those carried more than 1 ms after their time, because this
	// process did not get enough of the machine. Many of them, some per cent,
	// say that what was measured meanwhile is the machine and not the link.
	Late uint64
}

// Dropped is the sum of all packets that did not arrive, whatever the reason.
func (c Counters) Dropped() uint64 { return c.Lost + c.QueueFull + c.CutOff + c.Refused }

func (c *Counters) add(d Counters) {
	c.Sent += d.Sent
	c.SentBytes += d.SentBytes
	c.Carried += d.Carried
	c.CarriedBytes += d.CarriedBytes
	c.Lost += d.Lost
	c.QueueFull += d.QueueFull
	c.CutOff += d.CutOff
	c.Refused += d.Refused
	c.Duplicated += d.Duplicated
	c.HeldBack += d.HeldBack
	c.Late += d.Late
}

// path is one direction of a pair: from a host to the host of the port that
// it belongs to, whose lock guards it.
type path struct {
	id      uint64 // what makes its random numbers its own
	model   *model
	age     uint32 // counts cuts
	pending int    // parcels in the queue or being written
	count   Counters
}

// port is the switch's end towards one host: all paths that end there.
// Packets are handed over by one goroutine (run), or at once by the sender's
// when nothing delays them.
type port struct {
	device *os.File
	alarm  *alarm
	epoch  time.Time

	mu      sync.Mutex
	paths   []*path // by sending host; nil for the host itself
	queue   queue
	armed   time.Duration // when the alarm goes off; 0 when it is not set
	lastRun time.Duration
	closed  bool
	failure error
}

// accept takes a packet for the path from a host. The data stays the caller's.
func (p *port) accept(from int, data []byte) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	now := time.Since(p.epoch)
	way := p.paths[from]
	way.count.Sent++
	way.count.SentBytes += uint64(len(data))
	f := way.model.send(now, len(data))
	if f.outcome == carried && p.queue.bytes > maxUnderWay {
		f.outcome = queueFull
	}
	switch f.outcome {
	case lost:
		way.count.Lost++
	case queueFull:
		way.count.QueueFull++
	case cutOff:
		way.count.CutOff++
	case carried:
		if f.copies > 1 {
			way.count.Duplicated++
		}
		if f.held {
			way.count.HeldBack++
		}
		if f.due <= now && way.pending == 0 {
			p.mu.Unlock()
			p.writeNow(way, data, f.copies)
			return
		}
		for range f.copies {
			p.queue.push(f.due, data, way, way.age)
			way.pending++
		}
		p.arm(now)
	}
	p.mu.Unlock()
}

// writeNow hands a packet over that nothing delays, and takes the lock itself.
func (p *port) writeNow(way *path, data []byte, copies int) {
	var done Counters
	for range copies {
		p.write(data, &done)
	}
	p.mu.Lock()
	way.count.add(done)
	p.mu.Unlock()
}

func (p *port) write(data []byte, c *Counters) {
	if _, err := p.device.Write(data); err != nil {
		c.Refused++ // the device is down, or the network is being closed
		return
	}
	c.Carried++
	c.CarriedBytes += uint64(len(data))
}

// arm sets the alarm for the first parcel, with the lock held.
func (p *port) arm(now time.Duration) {
	due, ok := p.queue.next()
	if !ok || p.closed {
		return
	}
	due = max(due, p.lastRun+grain)
	if p.armed != 0 && p.armed <= due {
		return
	}
	if err := p.alarm.set(due - now); err != nil && p.failure == nil {
		p.failure = err
	}
	p.armed = due
}

// run hands over what is due until the port is closed.
func (p *port) run() {
	var (
		wake  [8]byte
		batch = make([]parcel, 0, batchSize)
		done  [batchSize]Counters
	)
	for p.alarm.wait(wake[:]) == nil {
		p.mu.Lock()
		p.armed = 0
		for {
			now := time.Since(p.epoch)
			batch = p.take(batch[:0], now)
			if len(batch) == 0 {
				p.lastRun = now
				p.arm(now)
				break
			}
			p.mu.Unlock()
			for i := range batch {
				done[i] = Counters{}
				p.write(batch[i].data, &done[i])
			}
			p.mu.Lock()
			for i := range batch {
				batch[i].path.count.add(done[i])
				batch[i].path.pending--
				p.queue.recycle(batch[i].data)
			}
		}
		p.mu.Unlock()
	}
}

// take moves what is due to batch, as far as it has room.
func (p *port) take(batch []parcel, now time.Duration) []parcel {
	for len(batch) < cap(batch) {
		next, ok := p.queue.pop(now)
		if !ok {
			break
		}
		if next.age != next.path.age { // it was on the line that was cut
			next.path.count.CutOff++
			next.path.pending--
			p.queue.recycle(next.data)
			continue
		}
		if now-next.due > lateAfter {
			next.path.count.Late++
		}
		batch = append(batch, next)
	}
	return batch
}

func (p *port) close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	err := p.failure
	p.mu.Unlock()
	return errors.Join(err, p.alarm.close(), p.device.Close())
}
