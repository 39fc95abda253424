//go:build gpu

package gpu

import (
	"fmt"
	"slices"
	"testing"

	"igcsearch/space"
	"igcsearch/trainer/dataset"
)

// TestTheOrderOfBlocksDoesNotMatter: ten steps, an evaluation and precise statistics
// have the same bits whatever the order of blocks and threads.
func TestTheOrderOfBlocksDoesNotMatter(t *testing.T) {
	const batch, steps = 33, 10
	set := pictureSet(steps*batch, 45, 8)
	in := space.Shape{C: 3, H: 8, W: 8}
	deep := network(t, "IGC-L4M2+Ident.", space.Stages, 8, 8, 3)
	for _, net := range []space.Network{space.Figure3(space.Pair{L: 4, M: 2}, 2, in, 3), deep} {
		t.Run(net.Name, func(t *testing.T) {
			var want []byte
			for _, order := range []string{"", "reverse", "random", "random"} {
				t.Setenv("IGC_EMULATED_ORDER", order)
				m := newOn(t, opened, net, set, batch)
				shown := dataset.Order(steps*batch, 3, 1)
				if err := m.Train(t.Context(), 1, shown, rates(0, steps), ignore); err != nil {
					t.Fatal(err)
				}
				score := m.evaluate(t, shown[:2*batch])
				got := append(m.bits(t, append(m.tensors.kept(), m.losses, m.corrects)...), fmt.Sprint(score)...)
				if want == nil {
					want = got
				} else if !slices.Equal(got, want) {
					t.Errorf("in %s order the bits are others", order)
				}
			}
		})
	}
}
