package space_test

import (
	"testing"

	"igcsearch/space"

	"pgregory.net/rapid"
)

func TestFigure3(t *testing.T) {
	t.Parallel()
	cifar := space.Shape{C: 3, H: 32, W: 32}
	t.Run("L40M2 by hand", func(t *testing.T) {
		// G = 80. conv0: 3·9·80 = 2160. A block: 9·40·4 + 2·1600 = 4640.
		// fc: 80·100 + 100 = 8100. 1024 positions.
		n := space.Figure3(space.Pair{L: 40, M: 2}, 6, cifar, 100)
		maps, vector := space.Shape{C: 80, H: 32, W: 32}, space.Shape{C: 80, H: 1, W: 1}
		want := []space.Layer{
			{Name: "conv0", Kind: space.Conv, In: cifar, Out: maps, Kernel: 9, Params: 2160, MultiplyAdds: 2160 * 1024},
		}
		for _, name := range []string{"block1", "block2", "block3", "block4", "block5", "block6"} {
			want = append(want, space.Layer{Name: name, Kind: space.IGC, In: maps, Out: maps,
				Pair: space.Pair{L: 40, M: 2}, Kernel: 9, Params: 4640, MultiplyAdds: 4640 * 1024})
		}
		want = append(want,
			space.Layer{Name: "pool", Kind: space.Pool, In: maps, Out: vector},
			space.Layer{Name: "fc", Kind: space.Linear, In: vector, Out: space.Shape{C: 100, H: 1, W: 1}, Params: 8100, MultiplyAdds: 8000})
		if len(n.Layers) != len(want) {
			t.Fatalf("%d layers, want %d", len(n.Layers), len(want))
		}
		for i, l := range n.Layers {
			if l != want[i] {
				t.Errorf("layer %d is %+v, want %+v", i, l, want[i])
			}
		}
		// 2160 + 6·4640 + 8100 and (2160 + 6·4640)·1024 + 8000.
		if n.Params() != 38_100 || n.MultiplyAdds() != 30_728_000 || n.Classes != 100 {
			t.Errorf("%d parameters, %d multiply–adds, %d classes", n.Params(), n.MultiplyAdds(), n.Classes)
		}
	})
	t.Run("the first convolution and a block of L24M2 are those of Table 3", func(t *testing.T) {
		// Depth 20, 10 classes: 1,296 in the first convolution; the six
		// blocks of the first stage at 2,016 are 12,096.
		n := space.Figure3(space.Pair{L: 24, M: 2}, 6, cifar, 10)
		blocks := 0
		for _, l := range n.Layers[1:7] {
			blocks += l.Params
		}
		if n.Layers[0].Params != 1296 || blocks != 12_096 {
			t.Errorf("%d and %d, want 1296 and 12096", n.Layers[0].Params, blocks)
		}
	})
	t.Run("shapes chain from the picture to the classes", rapid.MakeCheck(func(t *rapid.T) {
		in := space.Shape{C: rapid.IntRange(1, 4).Draw(t, "C"), H: rapid.IntRange(1, 40).Draw(t, "H"), W: rapid.IntRange(1, 40).Draw(t, "W")}
		classes := rapid.IntRange(1, 100).Draw(t, "classes")
		n := space.Figure3(pairs.Draw(t, "pair"), rapid.IntRange(1, 9).Draw(t, "blocks"), in, classes)
		names := map[string]bool{}
		at := in
		for _, l := range n.Layers {
			if l.In != at {
				t.Fatalf("%s takes %v, but gets %v", l.Name, l.In, at)
			}
			if names[l.Name] {
				t.Fatalf("%s twice", l.Name)
			}
			names[l.Name] = true
			at = l.Out
		}
		if want := (space.Shape{C: classes, H: 1, W: 1}); at != want {
			t.Fatalf("ends in %v, want %v", at, want)
		}
	}))
}
