package tpch

import "sync"

// poolSize is how many bytes of pseudo text all texts are cut from.
const poolSize = 8 << 20

// pool is the pseudo text, made when it is first needed: some 50 ms.
var pool = sync.OnceValue(func() []byte {
	w := writer{text: make([]byte, 0, poolSize+1024)}
	w.seed(forPool, 0)
	for len(w.text) < poolSize {
		w.sentence()
	}
	return w.text[:poolSize]
})

// writer makes sentences by the grammar of clause 4.2.2.14. Words of a sentence
// are separated by a space, and sentences are.
type writer struct {
	draws
	text []byte
}

func (w *writer) sentence() {
	switch n := w.below(11); {
	case n < 3:
		w.nounPhrase()
		w.verbPhrase()
	case n < 6:
		w.nounPhrase()
		w.verbPhrase()
		w.prepositionalPhrase()
	case n < 9:
		w.nounPhrase()
		w.verbPhrase()
		w.nounPhrase()
	case n < 10:
		w.nounPhrase()
		w.prepositionalPhrase()
		w.verbPhrase()
		w.nounPhrase()
	default:
		w.nounPhrase()
		w.prepositionalPhrase()
		w.verbPhrase()
		w.prepositionalPhrase()
	}
	w.text = w.text[:len(w.text)-1]
	w.word(terminators)
}

func (w *writer) nounPhrase() {
	switch n := w.below(9); {
	case n < 1:
	case n < 3:
		w.word(adjectives)
	case n < 4:
		w.word(adjectives)
		w.text = append(w.text[:len(w.text)-1], ", "...)
		w.word(adjectives)
	default:
		w.word(adverbs)
		w.word(adjectives)
	}
	w.word(nouns)
}

func (w *writer) verbPhrase() {
	n := w.below(72)
	if n < 2 {
		w.word(auxiliaries)
	}
	w.word(verbs)
	if n%2 == 1 {
		w.word(adverbs)
	}
}

func (w *writer) prepositionalPhrase() {
	w.word(prepositions)
	w.text = append(w.text, "the "...)
	w.nounPhrase()
}

func (w *writer) word(list []string) {
	w.text = append(w.text, oneOf(&w.draws, list)...)
	w.text = append(w.text, ' ')
}

// text appends pseudo text of a random length in bytes.
func (g *Generator) text(dst []byte, d *draws, least, most int64) []byte {
	n := d.between(least, most)
	at := d.below(int64(len(g.pool)) - n + 1)
	return append(dst, g.pool[at:at+n]...)
}

// alphabet has 64 characters, as the specification wants it.
const alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ,"

// variable appends a string of random characters, and of random length.
func variable(dst []byte, d *draws, least, most int64) []byte {
	bits := uint64(0)
	for i := range d.between(least, most) {
		if i%10 == 0 {
			bits = d.pcg.Uint64()
		}
		dst = append(dst, alphabet[bits&63])
		bits >>= 6
	}
	return dst
}
