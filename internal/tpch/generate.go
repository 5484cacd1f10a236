package tpch

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Table is one of the eight.
type Table int

// The tables, each after those it refers to.
const (
	Region Table = iota
	Nation
	Supplier
	Customer
	Part
	PartSupp
	Orders
	LineItem
)

// Tables are all of them in that order.
var Tables = []Table{Region, Nation, Supplier, Customer, Part, PartSupp, Orders, LineItem}

// String is the table's name in SQL.
func (t Table) String() string {
	return [...]string{"region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"}[t]
}

// The scale factors that can be made. 1 is some 1 GB of data.
const (
	MinScale = 0.001
	MaxScale = 10000
)

// CheckScale says what is wrong with a scale factor.
func CheckScale(scale float64) error {
	if !(scale >= MinScale && scale <= MaxScale) {
		return fmt.Errorf("scale %v: it goes from %v to %v", scale, MinScale, MaxScale)
	}
	return nil
}

// Generator makes the rows of one scale factor. It may be used concurrently.
type Generator struct {
	suppliers, customers, parts, orders, clerks int64

	pool []byte
}

// New makes the generator of a scale factor.
func New(scale float64) (*Generator, error) {
	if err := CheckScale(scale); err != nil {
		return nil, err
	}
	times := func(n float64) int64 { return max(1, int64(math.Round(n*scale))) }
	g := &Generator{
		suppliers: times(10_000), customers: times(150_000), parts: times(200_000), orders: times(1_500_000), clerks: times(1000),
		pool: pool(),
	}
	for !g.distinctSuppliers() {
		g.suppliers++
	}
	return g, nil
}

// Units is how many units a table's rows come in: an order, whose lines belong
// together, in lineitem; a part, which has four suppliers, in partsupp; a row
// in every other table.
func (g *Generator) Units(t Table) int64 {
	switch t {
	case Region:
		return int64(len(regions))
	case Nation:
		return int64(len(nations))
	case Supplier:
		return g.suppliers
	case Customer:
		return g.customers
	case Part, PartSupp:
		return g.parts
	default:
		return g.orders
	}
}

// Rows is how many rows a table has. Those of lineitem are counted, which takes
// some 10 ms for a scale factor of 1. There are 10000 suppliers times the scale
// factor, or so many more that the four suppliers of each part are different.
func (g *Generator) Rows(t Table) int64 {
	n := g.Units(t)
	switch t {
	case PartSupp:
		return suppliersOfPart * n
	case LineItem:
		lines := int64(0)
		var d draws
		for i := range n {
			d.seed(forOrder, i)
			lines += numLines(&d)
		}
		return lines
	}
	return n
}

// Append appends the rows of one unit of a table, counted from 0, in COPY's text
// format, and says how many they are.
func (g *Generator) Append(dst []byte, t Table, unit int64) ([]byte, int) {
	switch t {
	case Region:
		return g.region(dst, unit), 1
	case Nation:
		return g.nation(dst, unit), 1
	case Supplier:
		return g.supplier(dst, unit), 1
	case Customer:
		return g.customer(dst, unit), 1
	case Part:
		return g.part(dst, unit), 1
	case PartSupp:
		return g.partSupp(dst, unit), suppliersOfPart
	case Orders:
		return g.order(dst, unit), 1
	default:
		return g.lines(dst, unit)
	}
}

func (g *Generator) region(dst []byte, i int64) []byte {
	var d draws
	d.seed(forRegion, i)
	dst = strconv.AppendInt(dst, i, 10)
	dst = field(dst, regions[i])
	dst = g.text(append(dst, '\t'), &d, 31, 115)
	return append(dst, '\n')
}

func (g *Generator) nation(dst []byte, i int64) []byte {
	var d draws
	d.seed(forNation, i)
	dst = strconv.AppendInt(dst, i, 10)
	dst = field(dst, nations[i].name)
	dst = integer(dst, int64(nations[i].region))
	dst = g.text(append(dst, '\t'), &d, 31, 114)
	return append(dst, '\n')
}

func (g *Generator) supplier(dst []byte, i int64) []byte {
	var d draws
	d.seed(forSupplier, i)
	nation := d.below(int64(len(nations)))
	dst = strconv.AppendInt(dst, i+1, 10)
	dst = padded(append(dst, "\tSupplier#"...), i+1)
	dst = variable(append(dst, '\t'), &d, 10, 40)
	dst = integer(dst, nation)
	dst = phone(append(dst, '\t'), &d, nation)
	dst = money(dst, d.between(-999_99, 9999_99))
	dst = append(dst, '\t')
	begin := len(dst)
	dst = g.text(dst, &d, 25, 100)
	if word := remark(i); word != "" {
		insertRemark(dst[begin:], &d, word)
	}
	return append(dst, '\n')
}

// In each remarkBlock suppliers, remarks of them have a comment "Customer …
// Complaints" and as many one of "Customer … Recommends".
const (
	remarkBlock = 10_000
	remarks     = 5
)

// remark is the last word of the customers' opinion of a supplier, "" for most.
func remark(i int64) string {
	var d draws
	d.seed(forRemarks, i/remarkBlock)
	var drawn [2 * remarks]int64
	switch k := slices.Index(d.distinct(drawn[:], remarkBlock), i%remarkBlock); {
	case k < 0:
		return ""
	case k < remarks:
		return "Complaints"
	}
	return "Recommends"
}

// insertRemark writes "Customer" somewhere into a text, and the word somewhere
// behind it.
func insertRemark(text []byte, d *draws, word string) {
	const customer = "Customer"
	at := d.between(0, int64(len(text)-len(customer)-len(word)))
	copy(text[at:], customer)
	at = d.between(at+int64(len(customer)), int64(len(text)-len(word)))
	copy(text[at:], word)
}

func (g *Generator) customer(dst []byte, i int64) []byte {
	var d draws
	d.seed(forCustomer, i)
	nation := d.below(int64(len(nations)))
	dst = strconv.AppendInt(dst, i+1, 10)
	dst = padded(append(dst, "\tCustomer#"...), i+1)
	dst = variable(append(dst, '\t'), &d, 10, 40)
	dst = integer(dst, nation)
	dst = phone(append(dst, '\t'), &d, nation)
	dst = money(dst, d.between(-999_99, 9999_99))
	dst = field(dst, oneOf(&d, segments))
	dst = g.text(append(dst, '\t'), &d, 29, 116)
	return append(dst, '\n')
}

func (g *Generator) part(dst []byte, i int64) []byte {
	var d draws
	d.seed(forPart, i)
	dst = strconv.AppendInt(dst, i+1, 10)
	dst = partName(append(dst, '\t'), &d)
	maker, brand := byte('1'+d.below(5)), byte('1'+d.below(5))
	dst = append(append(dst, "\tManufacturer#"...), maker)
	dst = append(append(dst, "\tBrand#"...), maker, brand)
	dst = field(dst, oneOf(&d, types))
	dst = integer(dst, d.between(1, 50))
	dst = field(dst, oneOf(&d, containers))
	dst = money(dst, retailPrice(i+1))
	dst = g.text(append(dst, '\t'), &d, 5, 22)
	return append(dst, '\n')
}

// partName appends five different colours.
func partName(dst []byte, d *draws) []byte {
	var drawn [5]int64
	for k, c := range d.distinct(drawn[:], int64(len(colours))) {
		if k > 0 {
			dst = append(dst, ' ')
		}
		dst = append(dst, colours[c]...)
	}
	return dst
}

// retailPrice is that of a part, in cents.
func retailPrice(part int64) int64 { return 90_000 + part/10%20_001 + 100*(part%1000) }

// suppliersOfPart is how many suppliers a part has.
const suppliersOfPart = 4

// supplierOf is the k-th supplier of a part, counted from 0.
func (g *Generator) supplierOf(part, k int64) int64 {
	s := g.suppliers
	return (part+k*(s/4+(part-1)/s))%s + 1
}

// distinctSuppliers says whether the formula gives each part four different
// ones, as it does for all scales that the specification knows.
func (g *Generator) distinctSuppliers() bool {
	s := g.suppliers
	for round := range (g.parts-1)/s + 1 {
		for k := int64(1); k < suppliersOfPart; k++ {
			if k*(s/4+round)%s == 0 {
				return false
			}
		}
	}
	return true
}

func (g *Generator) partSupp(dst []byte, i int64) []byte {
	var d draws
	d.seed(forPartSupp, i)
	for k := range int64(suppliersOfPart) {
		dst = strconv.AppendInt(dst, i+1, 10)
		dst = integer(dst, g.supplierOf(i+1, k))
		dst = integer(dst, d.between(1, 9999))
		dst = money(dst, d.between(1_00, 1000_00))
		dst = g.text(append(dst, '\t'), &d, 49, 198)
		dst = append(dst, '\n')
	}
	return dst
}

// maxLines is the most that an order has; the least is one.
const maxLines = 7

// order is what the rows of an order have in common.
type order struct {
	key, customer int64
	date          int64 // days since the first
	n             int64
	lines         [maxLines]line
}

type line struct {
	part, supplier          int64
	quantity, discount, tax int64 // pieces, per cent, per cent
	price                   int64 // extended, in cents
	ship, commit, receipt   int64 // days since the first
	flag, status            byte
}

// numLines is how many lines an order has, the first that is drawn for it.
func numLines(d *draws) int64 { return d.between(1, maxLines) }

// orderKey leaves 24 of every 32 numbers free, for orders to come.
func orderKey(i int64) int64 { return i/8*32 + i%8 + 1 }

// draw makes the figures of an order.
func (g *Generator) draw(o *order, i int64) {
	var d draws
	d.seed(forOrder, i)
	o.n = numLines(&d)
	o.key = orderKey(i)
	// Every third customer orders nothing.
	k := d.below(g.customers - g.customers/3)
	o.customer = k/2*3 + k%2 + 1
	o.date = d.between(0, lastDay-151)
	for k := range o.n {
		l := &o.lines[k]
		l.part = d.between(1, g.parts)
		l.supplier = g.supplierOf(l.part, d.below(suppliersOfPart))
		l.quantity, l.discount, l.tax = d.between(1, 50), d.between(0, 10), d.between(0, 8)
		l.price = l.quantity * retailPrice(l.part)
		l.ship = o.date + d.between(1, 121)
		l.commit = o.date + d.between(30, 90)
		l.receipt = l.ship + d.between(1, 30)
		l.flag, l.status = 'N', 'F'
		if l.receipt <= currentDay {
			l.flag = "RA"[d.below(2)]
		}
		if l.ship > currentDay {
			l.status = 'O'
		}
	}
}

// status is that of all lines, or P when they differ.
func (o *order) status() byte {
	for _, l := range o.lines[1:o.n] {
		if l.status != o.lines[0].status {
			return 'P'
		}
	}
	return o.lines[0].status
}

// total is the price of all lines with discount and tax, in cents.
func (o *order) total() int64 {
	sum := int64(0) // in ten thousandths of a cent
	for _, l := range o.lines[:o.n] {
		sum += l.price * (100 - l.discount) * (100 + l.tax)
	}
	return (sum + 5000) / 10_000
}

func (g *Generator) order(dst []byte, i int64) []byte {
	var o order
	g.draw(&o, i)
	var d draws
	d.seed(forOrderText, i)
	dst = strconv.AppendInt(dst, o.key, 10)
	dst = integer(dst, o.customer)
	dst = append(dst, '\t', o.status())
	dst = money(dst, o.total())
	dst = day(dst, o.date)
	dst = field(dst, oneOf(&d, priorities))
	dst = padded(append(dst, "\tClerk#"...), d.between(1, g.clerks))
	dst = append(dst, "\t0\t"...)
	dst = g.text(dst, &d, 19, 78)
	return append(dst, '\n')
}

func (g *Generator) lines(dst []byte, i int64) ([]byte, int) {
	var o order
	g.draw(&o, i)
	var d draws
	d.seed(forLineText, i)
	for k := range o.n {
		l := &o.lines[k]
		dst = strconv.AppendInt(dst, o.key, 10)
		dst = integer(dst, l.part)
		dst = integer(dst, l.supplier)
		dst = append(dst, '\t', byte('1'+k))
		dst = integer(dst, l.quantity)
		dst = money(dst, l.price)
		dst = money(dst, l.discount)
		dst = money(dst, l.tax)
		dst = append(dst, '\t', l.flag, '\t', l.status)
		dst = day(dst, l.ship)
		dst = day(dst, l.commit)
		dst = day(dst, l.receipt)
		dst = field(dst, oneOf(&d, instructions))
		dst = field(dst, oneOf(&d, modes))
		dst = g.text(append(dst, '\t'), &d, 10, 43)
		dst = append(dst, '\n')
	}
	return dst, int(o.n)
}

var (
	firstDate   = time.Date(1992, 1, 1, 0, 0, 0, 0, time.UTC)
	currentDate = time.Date(1995, 6, 17, 0, 0, 0, 0, time.UTC)
	lastDate    = time.Date(1998, 12, 31, 0, 0, 0, 0, time.UTC)

	currentDay = daysSinceFirst(currentDate)
	lastDay    = daysSinceFirst(lastDate)

	// days are all dates as they are written.
	days = func() (list [][10]byte) {
		for d := firstDate; !d.After(lastDate); d = d.AddDate(0, 0, 1) {
			list = append(list, [10]byte([]byte(d.Format(time.DateOnly))))
		}
		return list
	}()
)

func daysSinceFirst(d time.Time) int64 { return int64(d.Sub(firstDate) / (24 * time.Hour)) }

// The functions below append a delimiter and a value.

func field(dst []byte, s string) []byte { return append(append(dst, '\t'), s...) }

func integer(dst []byte, n int64) []byte { return strconv.AppendInt(append(dst, '\t'), n, 10) }

func day(dst []byte, d int64) []byte { return append(append(dst, '\t'), days[d][:]...) }

// money writes hundredths as a number with two decimals.
func money(dst []byte, n int64) []byte {
	dst = append(dst, '\t')
	if n < 0 {
		dst, n = append(dst, '-'), -n
	}
	dst = strconv.AppendInt(dst, n/100, 10)
	return append(dst, '.', byte('0'+n/10%10), byte('0'+n%10))
}

// padded appends a number with at least nine digits, and no delimiter.
func padded(dst []byte, n int64) []byte {
	for low := int64(100_000_000); low > 1 && n < low; low /= 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, n, 10)
}

// phone appends a number whose country code tells the nation, and no delimiter.
func phone(dst []byte, d *draws, nation int64) []byte {
	dst = strconv.AppendInt(dst, 10+nation, 10)
	dst = strconv.AppendInt(append(dst, '-'), d.between(100, 999), 10)
	dst = strconv.AppendInt(append(dst, '-'), d.between(100, 999), 10)
	return strconv.AppendInt(append(dst, '-'), d.between(1000, 9999), 10)
}
