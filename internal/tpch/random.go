package tpch

import (
	"math/bits"
	"math/rand/v2"
	"slices"
)

// purpose is what random numbers are drawn for. Each has a sequence of its own
// for each unit, so that what is not needed need not be drawn.
type purpose uint64

const (
	forPool purpose = iota
	forRegion
	forNation
	forSupplier
	forRemarks // which suppliers are complained about or recommended
	forCustomer
	forPart
	forPartSupp
	forOrder // its key figures and its lines
	forOrderText
	forLineText
)

// origin sets this data apart from any other; another number makes other rows
// of the same distributions. With this one each query has an answer already at
// a scale of 0.01.
const origin = 1992_2009

// draws is a sequence of random numbers. The zero value is used after seed.
type draws struct{ pcg rand.PCG }

// seed begins the sequence of one purpose and unit.
func (d *draws) seed(p purpose, unit int64) {
	d.pcg.Seed(mix(uint64(unit)), mix(origin<<8|uint64(p)))
}

// mix spreads the bits of a number, so that neighbours begin far apart.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// below returns a number from 0 to n-1. What it errs from the uniform is less
// than n/2^64.
func (d *draws) below(n int64) int64 {
	hi, _ := bits.Mul64(d.pcg.Uint64(), uint64(n))
	return int64(hi)
}

// between returns a number from least to most.
func (d *draws) between(least, most int64) int64 { return least + d.below(most-least+1) }

// distinct fills a list with different numbers from 0 to n-1, of which there
// must be more than a few times as many, and returns it.
func (d *draws) distinct(list []int64, n int64) []int64 {
	for k := 0; k < len(list); {
		list[k] = d.below(n)
		if !slices.Contains(list[:k], list[k]) {
			k++
		}
	}
	return list
}

// oneOf returns one of a list, each as likely.
func oneOf(d *draws, list []string) string { return list[d.below(int64(len(list)))] }
