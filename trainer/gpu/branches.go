package gpu

// The launches of a plan are in two branches, which may run at the same time: the main
// one, and that of the weights' gradients, whose results only the update reads.

// beside puts the launches of f beside those of the main branch that follow. They
// begin when those before have ended.
func (p *plan) beside(f func()) {
	p.aside = true
	f()
	p.aside = false
}

// lag is how many convolutions the launches beside the main branch may be behind it.
// The tensors that they read take the more memory the larger it is: at L40M2 328 MB
// with 0, 348 with 1, 388 with 2, 508 without a bound.
const lag = 1

// bound makes the main branch wait for the launches beside it that are older than
// the last lag calls of bound.
func (p *plan) bound() {
	p.ends = append(p.ends, len(p.launches))
	if i := len(p.ends) - 1 - lag; i >= 0 {
		p.joined = p.ends[i]
	}
}

// waits returns for each launch the one of the other branch that it must wait for; −1:
// none, or one before it in its own branch did.
func (p *plan) waits() []int {
	list := make([]int, len(p.launches))
	var last [2][]int // for each branch and i: the last of its launches among the first i, or −1
	for b := range last {
		last[b] = append(last[b], -1)
		for i, l := range p.launches {
			last[b] = append(last[b], last[b][i])
			if l.aside == (b == 1) {
				last[b][i+1] = i
			}
		}
	}
	waited := [2]int{-1, -1}
	for i, l := range p.launches {
		own := flag(l.aside)
		list[i] = -1
		if other := last[1-own][l.after]; other > waited[own] {
			list[i], waited[own] = other, other
		}
	}
	return list
}

// window returns the launches from which and up to which launch i may run, as seen
// from the main branch.
func (p *plan) window(i int) (from, to int) {
	if !p.launches[i].aside {
		return i, i
	}
	to = i
	for to+1 < len(p.launches) && (p.launches[to+1].aside || p.launches[to+1].after <= i) {
		to++
	}
	return p.launches[i].after, to
}
