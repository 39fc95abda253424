package strategy

import "igcsearch/search"

// Beliefs returns what "peak" believed after each round of its last decision.
func Beliefs(decides search.Strategy) (list []Belief) {
	for _, r := range decides.(*peak).rounds {
		list = append(list, r.belief)
	}
	return list
}
