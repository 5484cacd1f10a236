package udpifc

import "container/list"

// recent is a map that forgets what was not used for longest when it has more
// than max entries.
type recent[K comparable, V any] struct {
	max     int
	entries map[K]*list.Element
	order   list.List // of recentEntry, the longest unused first
}

type recentEntry[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any](max int) *recent[K, V] {
	return &recent[K, V]{max: max, entries: map[K]*list.Element{}}
}

func (r *recent[K, V]) get(k K) (v V, ok bool) {
	e := r.entries[k]
	if e == nil {
		return v, false
	}
	r.order.MoveToBack(e)
	return e.Value.(recentEntry[K, V]).value, true
}

func (r *recent[K, V]) put(k K, v V) {
	r.remove(k)
	if len(r.entries) >= r.max {
		r.evict()
	}
	r.entries[k] = r.order.PushBack(recentEntry[K, V]{k, v})
}

func (r *recent[K, V]) remove(k K) {
	if e := r.entries[k]; e != nil {
		r.order.Remove(e)
		delete(r.entries, k)
	}
}

// evict forgets one entry and returns it; false when there is none.
func (r *recent[K, V]) evict() (v V, ok bool) {
	e := r.order.Front()
	if e == nil {
		return v, false
	}
	entry := e.Value.(recentEntry[K, V])
	r.remove(entry.key)
	return entry.value, true
}
