package sim

import "math/bits"

// What a Trunkline proxy keeps, in bytes.
const (
	// proxyBase is a proxy without peers: its program, heap and stacks.
	proxyBase = 16 << 20
	// peerBuffer is the read buffer of a connection with a peer (proxy/trunk).
	peerBuffer = 256 << 10
	// idleEnd is one end of an idle logical connection, measured as the growth
	// of the process: 7.1 KiB (docs/performance.md).
	idleEnd = 7270

	minWindow     = 8 << 10   // logical.MinWindow
	initialWindow = 256 << 10 // logical.InitialWindow
	maxWindow     = 16 << 20  // logical.DefaultMaxWindow
)

// memory of the proxies at a place: idle and at most.
func (m model) memory(p place, sessions int64) (idle, most int64) {
	if m.t == Proxy {
		peers := int64(m.c.Segments)
		i, a := m.proxyMemory(sessions*m.ends(place{segments: 1}), peers)
		ci, ca := m.proxyMemory(sessions*m.ends(place{coordinator: 1}), peers)
		return p.segments*i + p.coordinator*ci, p.segments*a + p.coordinator*ca
	}
	if m.t != HostProxy {
		return 0, 0
	}
	peers := m.c.hosts() - 1
	if p.hosts > 0 {
		return m.proxyMemory(sessions*m.ends(p), peers)
	}
	for _, h := range m.c.layout() {
		i, a := m.proxyMemory(sessions*m.ends(h), peers)
		idle += h.hosts * i
		most += h.hosts * a
	}
	return idle, most
}

// proxyMemory is that of one proxy. Beyond what it needs for itself it is what
// the windows begin with, and a quarter of the budget by which they may grow
// (proxy/logical: Budget.grow).
func (m model) proxyMemory(ends, peers int64) (idle, most int64) {
	budget := m.c.System.ProxyMemory
	idle = proxyBase + peers*peerBuffer + ends*idleEnd
	return idle, idle + windows(ends, budget) + min(budget/4, ends*(maxWindow-minWindow))
}

// windows is what the windows of so many ends begin with in sum, all opened
// one after the other (proxy/logical: Budget.initial): each takes a power of
// two of at most a 512th of what is left of half the budget, 256 kB at most and
// 8 kB at least, whatever is left.
func windows(ends, budget int64) (sum int64) {
	for ends > 0 {
		w, until := int64(minWindow), int64(-1)
		if free := (budget/2 - sum) / 512; free >= 2*minWindow {
			w = int64(1) << (bits.Len64(uint64(free)) - 1)
			// The window is w as long as at least w*512 is left.
			until = budget/2 - w*512
			if w >= initialWindow {
				w, until = initialWindow, budget/2-initialWindow*512
			}
		}
		k := ends
		if until >= 0 {
			k = min(ends, (until-sum)/w+1)
		}
		sum += k * w
		ends -= k
	}
	return sum
}

// roomy is how many ends begin with a window above the least.
func roomy(budget int64) (ends int64) {
	lo, hi := int64(0), budget/(2*minWindow)+1
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if windows(mid, budget)-windows(mid-1, budget) > minWindow {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo
}
