package plan

import (
	"math"
	"math/bits"
	"slices"
)

// Which part of a join to make first. All ways to make what FROM joins in slices
// are compared by the bytes that they move, as if each table could be moved in
// every way; whether a slice can really be so is for mover to say.

// joinShare is how much may be left of the bytes for a join to be made in several
// slices rather than one, and readShare how much of what the tables have must be
// saved. Guesses of joins are less certain than those of tables, each slice waits
// for another, and PostgreSQL knows less of what is joined before than of tables.
const (
	joinShare = 0.9
	readShare = 0.05
)

// worth says whether a join that moves some bytes is clearly better than one that
// moves more.
func (j *joinParts) worth(less, more float64) bool {
	return less <= more*joinShare && more-less >= j.mv.reads()*readShare
}

// joinSearch is the search of a level's parts. What is by set and target of the
// placing is a slice of slices.
type joinSearch struct {
	*joinParts
	targets []placing
	// item are the bytes that bring a set to a target as one thing: a unit, or a
	// part; isPart says that it is one.
	item   [][]float64
	isPart [][]bool
	// slice are the bytes that bring a set together in a slice, first is the thing
	// with its first unit; in and whole are the same where it may be one thing,
	// and is.
	slice [][]float64
	first [][]units
	in    [][]float64
	whole [][]bool
	by    []int // the cheapest target of each set's slice
}

// best is the part to make first: of those that the cheapest way makes, one that
// needs no other; 0: that way makes none. cost is how many bytes it moves, one how
// many those that make no part do.
func (j *joinParts) best() (part units, cost, one float64) {
	s := &joinSearch{joinParts: j, targets: j.mv.targets()}
	all := units(1)<<len(j.units) - 1
	j.sizes = make([]float64, all+1)
	n := len(s.targets)
	for range all + 1 {
		s.item, s.slice, s.in = append(s.item, make([]float64, n)), append(s.slice, make([]float64, n)), append(s.in, make([]float64, n))
		s.isPart, s.whole = append(s.isPart, make([]bool, n)), append(s.whole, make([]bool, n))
		s.first = append(s.first, make([]units, n))
	}
	s.by = make([]int, all+1)
	for set := units(1); set <= all; set++ {
		s.look(set, all)
	}
	cost, one = math.Inf(1), math.Inf(1)
	at := 0
	for t := range s.targets {
		links, single := 0.0, 0.0
		for _, l := range j.links {
			links += j.mv.least(l, s.targets[t])
		}
		for i := range j.units {
			for _, l := range j.units[i].leaves {
				single += j.mv.least(l, s.targets[t])
			}
		}
		if c := s.slice[all][t] + links; c < cost {
			cost, at = c, t
		}
		one = min(one, single+links)
	}
	if math.IsInf(cost, 1) {
		return 0, cost, one
	}
	return s.partOf(all, at), cost, one
}

// look finds the cheapest ways for a set when those for its subsets are known.
func (s *joinSearch) look(set, all units) {
	low := set & -set
	least := math.Inf(1)
	for t := range s.targets {
		c := math.Inf(1)
		if set == low {
			c = 0
			for _, l := range s.units[bits.TrailingZeros32(uint32(set))].leaves {
				c += s.mv.least(l, s.targets[t])
			}
		} else {
			rest := set &^ low
			for more := rest; more > 0; {
				more = (more - 1) & rest
				thing := more | low
				if d := s.item[thing][t] + s.in[set&^thing][t]; d < c {
					c, s.first[set][t] = d, thing
				}
			}
		}
		s.slice[set][t] = c
		if c < least {
			least, s.by[set] = c, t
		}
	}
	part := set != all && !math.IsInf(least, 1) && s.valid(set)
	for t := range s.targets {
		s.item[set][t] = math.Inf(1)
		if set == low {
			s.item[set][t] = s.slice[set][t]
		}
		if part {
			if c := least + s.moving(set, s.targets[t]); c < s.item[set][t] {
				s.item[set][t], s.isPart[set][t] = c, true
			}
		}
		s.in[set][t], s.whole[set][t] = s.slice[set][t], set == low
		if s.item[set][t] < s.in[set][t] {
			s.in[set][t], s.whole[set][t] = s.item[set][t], true
		}
	}
}

// partOf is a part that needs no other among those of a set's slice; 0: there are
// none.
func (s *joinSearch) partOf(set units, t int) units {
	if set&(set-1) == 0 {
		return 0
	}
	for thing, rest := s.first[set][t], set; ; {
		if s.isPart[thing][t] {
			if p := s.partOf(thing, s.by[thing]); p != 0 {
				return p
			}
			return thing
		}
		if rest &^= thing; rest == 0 {
			return 0
		}
		if thing = rest; !s.whole[rest][t] {
			thing = s.first[rest][t]
		}
	}
}

// valid says whether a set can be a part.
func (j *joinParts) valid(set units) bool {
	base := false
	for i, u := range j.units {
		if !set.has(i) {
			continue
		}
		if u.whole || u.needs&^set != 0 {
			return false
		}
		base = base || u.on == nil
	}
	if set&(set-1) == 0 && j.units[bits.TrailingZeros32(uint32(set))].table() {
		return false
	}
	return base && j.rows(set) > 0
}

// moving is how many bytes bring the rows of a part to where a target wants them.
func (j *joinParts) moving(part units, t placing) float64 {
	rows, n := j.rows(part), float64(t.segs)
	const head, unknown = 8, 20
	width := float64(head)
	placed := make([]bool, len(t.classes))
	for _, id := range j.needed(part) {
		c := baseColumn(id)
		if c == nil {
			width += unknown
			continue
		}
		width += c.width()
		if d := distinct(id); !j.p.sends(c) || d > 0 && min(d, rows) < n*valuesPerSegment {
			continue
		}
		for _, b := range inner(id) {
			if i := slices.Index(t.classes, j.mv.eq.root(b)); i >= 0 {
				placed[i] = true
			}
		}
	}
	if len(placed) > 0 && !slices.Contains(placed, false) {
		return rows * width * (n - 1) / n
	}
	return rows * width * (n - 1)
}

// rows guesses how many rows a set of units makes; 0 when they are joined by no
// equality, or of columns of which nothing is known.
func (j *joinParts) rows(set units) float64 {
	if j.sizes[set] == 0 {
		j.sizes[set] = -1
		if set&(set-1) == 0 {
			j.sizes[set] = j.units[bits.TrailingZeros32(uint32(set))].rows
		} else {
			// Without a unit that no other needs.
			for i := len(j.units) - 1; i >= 0; i-- {
				rest := set &^ (1 << i)
				if rest == set || slices.ContainsFunc(j.units, func(u *unit) bool { return u.needs.has(i) && j.inSet(u, rest) }) {
					continue
				}
				if n := j.joined(rest, i); n > 0 {
					j.sizes[set] = n
					break
				}
			}
		}
	}
	return max(0, j.sizes[set])
}

func (j *joinParts) inSet(u *unit, set units) bool {
	return set.has(slices.Index(j.units, u))
}

// joined guesses how many rows the join of a set with a unit makes.
func (j *joinParts) joined(set units, i int) float64 {
	rows, u := j.rows(set), j.units[i]
	if rows == 0 {
		return 0
	}
	keys := map[colID]float64{} // the unit's columns: how many values in the set
	for _, e := range j.equal {
		a, b := e.cols[0], e.cols[1]
		if j.of[a.rte] == i {
			a, b = b, a
		}
		if j.of[b.rte] != i || !set.has(j.of[a.rte]) || e.left && u.on == nil {
			continue
		}
		d := min(rows, j.values(a))
		if old, ok := keys[b]; ok && old > 0 && (d == 0 || old < d) {
			d = old
		}
		keys[b] = d
	}
	if len(keys) == 0 {
		return 0
	}
	most, here, there := 0.0, 1.0, 1.0
	for b, d := range keys {
		v := j.values(b)
		if d == 0 && v == 0 {
			return 0
		}
		one := max(d, v)
		most = max(most, one)
		if d == 0 {
			d = one
		}
		if v == 0 {
			v = one
		}
		here, there = here*v, there*d
	}
	if len(keys) > 1 {
		// Of several columns, not all pairs of values are there.
		most = max(most, min(min(here, u.rows), min(there, rows)))
	}
	n := max(1, rows*u.rows/most)
	if u.on != nil {
		n = max(n, rows)
	}
	return n
}

// values guesses how many different values a column has in its unit.
func (j *joinParts) values(id colID) float64 {
	return min(distinct(id), j.units[j.of[id.rte]].rows)
}
