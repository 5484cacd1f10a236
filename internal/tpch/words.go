package tpch

import "strings"

// The words of clauses 4.2.2.13 and 4.2.2.14 of the specification.

// colours are what names of parts are made of.
var colours = strings.Fields(`
	almond antique aquamarine azure beige bisque black blanched blue blush brown
	burlywood burnished chartreuse chiffon chocolate coral cornflower cornsilk
	cream cyan dark deep dim dodger drab firebrick floral forest frosted
	gainsboro ghost goldenrod green grey honeydew hot indian ivory khaki lace
	lavender lawn lemon light lime linen magenta maroon medium metallic midnight
	mint misty moccasin navajo navy olive orange orchid pale papaya peach peru
	pink plum powder puff purple red rose rosy royal saddle salmon sandy seashell
	sienna sky slate smoke snow spring steel tan thistle tomato turquoise violet
	wheat white yellow`)

var (
	types = syllables(
		strings.Fields("STANDARD SMALL MEDIUM LARGE ECONOMY PROMO"),
		strings.Fields("ANODIZED BURNISHED PLATED POLISHED BRUSHED"),
		strings.Fields("TIN NICKEL BRASS STEEL COPPER"))
	containers = syllables(
		strings.Fields("SM LG MED JUMBO WRAP"),
		strings.Fields("CASE BOX BAG JAR PKG PACK CAN DRUM"))
	segments     = strings.Fields("AUTOMOBILE BUILDING FURNITURE MACHINERY HOUSEHOLD")
	priorities   = []string{"1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"}
	instructions = []string{"DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"}
	modes        = []string{"REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"}
	regions      = []string{"AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"}
)

// syllables joins each word of the first list with each of the next ones.
func syllables(first []string, more ...[]string) []string {
	list := first
	for _, words := range more {
		var longer []string
		for _, a := range list {
			for _, b := range words {
				longer = append(longer, a+" "+b)
			}
		}
		list = longer
	}
	return list
}

// nations are in the order of their keys.
var nations = []struct {
	name   string
	region int
}{
	{"ALGERIA", 0}, {"ARGENTINA", 1}, {"BRAZIL", 1}, {"CANADA", 1}, {"EGYPT", 4},
	{"ETHIOPIA", 0}, {"FRANCE", 3}, {"GERMANY", 3}, {"INDIA", 2}, {"INDONESIA", 2},
	{"IRAN", 4}, {"IRAQ", 4}, {"JAPAN", 2}, {"JORDAN", 4}, {"KENYA", 0},
	{"MOROCCO", 0}, {"MOZAMBIQUE", 0}, {"PERU", 1}, {"CHINA", 2}, {"ROMANIA", 3},
	{"SAUDI ARABIA", 4}, {"VIETNAM", 2}, {"RUSSIA", 3}, {"UNITED KINGDOM", 3}, {"UNITED STATES", 1},
}

// The words of pseudo text. The specification names them and leaves open how
// often each comes. Those that queries look for are among the frequent ones
// here, so that "special … requests" is in about one order's comment of 100.
var (
	nouns = weighted(
		40, "packages requests accounts deposits",
		20, "foxes ideas theodolites pinto_beans instructions dependencies",
		10, "excuses platelets asymptotes courts dolphins",
		1, `multipliers sauternes warthogs frets dinos attainments somas Tiresias
			patterns forges braids hockey_players frays warhorses dugouts notornis
			epitaphs pearls tithes waters orbits gifts sheaves depths sentiments
			decoys realms pains grouches escapades`)
	verbs = weighted(
		12, "sleep wake are cajole haggle nag use boost affix detect integrate",
		1, `maintain nod was lose sublate solve thrash promise engage hinder print
			x-ray breach eat grow impress mold poach serve run dazzle snooze doze
			unwind kindle play hang believe doubt`)
	adjectives = weighted(
		40, "regular final ironic",
		20, "special pending unusual express even bold",
		10, "silent",
		1, `furious sly careful blithe quick fluffy slow quiet ruthless thin close
			dogged daring brave stealthy permanent enticing idle busy`)
	adverbs = weighted(
		40, "furiously slyly carefully blithely quickly fluffily",
		1, `sometimes always never slowly quietly ruthlessly thinly closely doggedly
			daringly bravely stealthily permanently enticingly idly busily regularly
			finally ironically evenly boldly silently`)
	prepositions = weighted(
		20, "about above according_to across after against along among around at",
		1, `alongside_of atop before behind beneath beside besides between beyond by
			despite during except for from in_place_of inside instead_of into near of
			on outside over past since through throughout to toward under until up
			upon without with within`)
	auxiliaries = weighted(
		1, `do may might shall will would can could should ought_to must will_have_to
			shall_have_to could_have_to should_have_to must_have_to need_to try_to`)
	terminators = weighted(50, ".", 1, "; : ? ! --")
)

// weighted takes pairs of a weight and words, and repeats each word by its
// weight. An underscore in a word is a space.
func weighted(pairs ...any) (list []string) {
	for ; len(pairs) > 0; pairs = pairs[2:] {
		for _, word := range strings.Fields(pairs[1].(string)) {
			for range pairs[0].(int) {
				list = append(list, strings.ReplaceAll(word, "_", " "))
			}
		}
	}
	return list
}
