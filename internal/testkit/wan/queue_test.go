package wan

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestQueueOrder puts parcels in and takes them out at random, against a
// sorted list.
func TestQueueOrder(t *testing.T) {
	type item struct {
		due time.Duration
		id  int
	}
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var want []item
		now, id := time.Duration(0), 0
		data := func(id, size int) []byte { return bytes.Repeat([]byte{byte(id)}, size) }
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "push") {
				due := now + time.Duration(rapid.IntRange(0, 20).Draw(t, "due"))
				q.push(due, data(id, 1+id%65536%3000), nil, uint32(id))
				want = append(want, item{due, id})
				id++
				continue
			}
			now += time.Duration(rapid.IntRange(0, 5).Draw(t, "pass"))
			slices.SortStableFunc(want, func(a, b item) int { return int(a.due - b.due) })
			for {
				got, ok := q.pop(now)
				if !ok {
					break
				}
				if len(want) == 0 || got.due != want[0].due || int(got.age) != want[0].id {
					t.Fatalf("took parcel %d due at %v, expected %v", got.age, got.due, want)
				}
				if !bytes.Equal(got.data, data(want[0].id, 1+want[0].id%3000)) {
					t.Fatalf("the data of parcel %d is another's", got.age)
				}
				q.recycle(got.data)
				want = want[1:]
			}
			if len(want) > 0 && want[0].due <= now {
				t.Fatalf("at %v the queue gives nothing, expected %v", now, want[0])
			}
			if next, ok := q.next(); ok != (len(want) > 0) || ok && next != want[0].due {
				t.Fatalf("next is %v, %v; expected %v", next, ok, want)
			}
		}
		if len(want) == 0 && q.bytes != 0 {
			t.Fatalf("an empty queue holds %d bytes", q.bytes)
		}
	})
}

func TestQueueSizes(t *testing.T) {
	var q queue
	for _, size := range []int{1, 127, 128, 129, 1500, 2048, 65535, 65536} {
		q.push(0, make([]byte, size), nil, 0)
		p, ok := q.pop(0)
		if !ok || len(p.data) != size {
			t.Fatalf("a packet of %d bytes came back with %d", size, len(p.data))
		}
		q.recycle(p.data)
	}
	if q.bytes != 0 {
		t.Errorf("an empty queue holds %d bytes", q.bytes)
	}
}

// TestTake checks what is taken out for the device, and how it is counted.
func TestTake(t *testing.T) {
	way := &path{age: 3, pending: 4}
	p := &port{}
	for i, due := range []time.Duration{10 * time.Millisecond, 2 * time.Millisecond, time.Millisecond, 0} {
		age := way.age
		if i == 2 {
			age-- // sent before the cut
		}
		p.queue.push(due, []byte{byte(i)}, way, age)
	}
	batch := p.take(make([]parcel, 0, 10), 2*time.Millisecond)
	if len(batch) != 2 || batch[0].data[0] != 3 || batch[1].data[0] != 1 {
		t.Errorf("took %v, want the packets 3 (2 ms late) and 1", batch)
	}
	if want := (Counters{CutOff: 1, Late: 1}); way.count != want || way.pending != 3 {
		t.Errorf("counted %+v, %d pending", way.count, way.pending)
	}
	if batch = p.take(make([]parcel, 0, 10), 9*time.Millisecond); len(batch) != 0 {
		t.Errorf("took %v before its time", batch)
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	var q queue
	m := newModel(Link{Delay: time.Millisecond, Rate: 1e9, Queue: 1e6, Jitter: 1, Reorder: 0.1, Duplicate: 0.1}, 1)
	data, now := make([]byte, 1500), time.Duration(0)
	step := func() {
		now += 20 * time.Microsecond
		if f := m.send(now, len(data)); f.outcome == carried {
			for range f.copies {
				q.push(f.due, data, nil, 0)
			}
		}
		for {
			p, ok := q.pop(now)
			if !ok {
				return
			}
			q.recycle(p.data)
		}
	}
	for range 10_000 {
		step()
	}
	if n := testing.AllocsPerRun(10_000, step); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
