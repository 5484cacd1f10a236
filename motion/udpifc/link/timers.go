package link

import (
	"container/heap"
	"time"
)

// timer is an alarm of a packet or, where packet is nil, of a connection.
type timer struct {
	due    time.Duration
	at     int // in the heap, from 1; 0 when not set
	conn   int
	packet *Packet
}

// timers is a heap of alarms, the earliest first.
type timers []*timer

func (h timers) Len() int { return len(h) }
func (h timers) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.due == b.due && a.packet != nil && b.packet != nil {
		return a.packet.Seq < b.packet.Seq
	}
	return a.due < b.due
}
func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i+1, j+1
}
func (h *timers) Push(x any) {
	t := x.(*timer)
	*h = append(*h, t)
	t.at = len(*h)
}
func (h *timers) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.at = 0
	return t
}

func (h *timers) set(t *timer, due time.Duration) {
	if t.at == 0 {
		t.due = due
		heap.Push(h, t)
	} else if t.due != due {
		t.due = due
		heap.Fix(h, t.at-1)
	}
}

func (h *timers) clear(t *timer) {
	if t.at != 0 {
		heap.Remove(h, t.at-1)
	}
}
