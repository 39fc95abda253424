//go:build gpu

package gpu

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"igcsearch/trainer/kernel"
)

// TestEveryWeightGradTileAgreesWithTheOracle runs each kernel of the weights' gradients
// on widths that are a multiple of the positions it takes at a time, or not, or below,
// and on channels that are no multiple of its tile.
func TestEveryWeightGradTileAgreesWithTheOracle(t *testing.T) {
	all := tilesOf
	defer func() { tilesOf = all }()
	for _, family := range slices.Sorted(maps.Keys(all)) {
		for _, tile := range all[family] {
			tilesOf = map[string][][2]int{family: {tile}}
			for _, size := range [][2]int{{5, 9}, {2, 8}, {3, 2}, {1, 1}} {
				for more := range 2 {
					c := channels{h: size[0], w: size[1], groups: 2, co: tile[0] + more, ci: tile[1] + more,
						stepIn: 1 + more, stepOut: 1 + more, kh: 3, kw: 3, stride: 1}
					switch {
					case strings.HasPrefix(family, "1x1"):
						c.kh, c.kw = 1, 1
					case strings.HasPrefix(family, "3x3s2"):
						c.stride = 2
					case strings.HasPrefix(family, "_any"):
						c.kh, c.kw, c.stride = 5, 3, 1+more
					}
					c = c.whole()
					name := fmt.Sprintf("%s/%dx%d/%dx%d/%d", family, tile[0], tile[1], size[0], size[1], more)
					t.Run(name, func(t *testing.T) { testWeightGrad(t, c, family) })
				}
			}
		}
	}
}

// testWeightGrad holds the one kernel of a family that there is to the oracle.
func testWeightGrad(t *testing.T, c channels, family string) {
	const n = 33
	rnd := rand.New(rand.NewPCG(3, 4))
	hw, ohw, in, out, weights := c.h*c.w, c.oh*c.ow, c.groups*c.ci, c.groups*c.co, c.groups*c.co*c.ci*c.kh*c.kw
	x, g, z := uniform(rnd, n*in*hw, 2), uniform(rnd, n*out*ohw, 1), uniform(rnd, n*out*ohw, 1)
	r := newRig(t, n)
	a := &weightGradArgs{x: r.activation(x, in*hw)}
	var o kernel.Oracle
	ones, zeros := slices.Repeat([]float64{1}, in), make([]float64, in)
	if !strings.HasPrefix(family, "1x1") || strings.Contains(family, "normal") {
		scale, shift := uniform(rnd, in, 1), uniform(rnd, in, 1)
		a.scale, a.shift = r.input(scale), r.input(shift)
		x = o.Affine(x, scale, shift, false, in, hw)
	} else {
		x = o.Affine(x, ones, zeros, false, in, hw) // held to low, 0
	}
	if strings.Contains(family, string(ofTwo)) {
		ca, cb, cc := uniform(rnd, out, 1), uniform(rnd, out, .1), uniform(rnd, out, .1)
		a.g, a.z = r.activation(g, out*ohw), r.activation(z, out*ohw)
		a.ca, a.cb, a.cc = r.input(ca), r.input(cb), r.input(cc)
		for i := range g {
			ch := i / ohw % out
			g[i] = ca[ch]*g[i] + cb[ch]*z[i] + cc[ch]
		}
	} else {
		a.g = r.padded(g, out*ohw, 0)
	}
	conv := kernel.GroupConv{N: n, Groups: c.groups, Ci: c.ci, Co: c.co, H: c.h, W: c.w, KH: c.kh, KW: c.kw,
		Stride: c.stride}
	_, want := conv.Backward(c.partitioned(x, n, c.ci, c.stepIn, hw), make([]float64, weights),
		c.partitioned(g, n, c.co, c.stepOut, ohw))
	r.p.place["w"] = 0
	r.p.weightGrad(c, a, "w", 1)
	if kernel := r.p.launches[0].kernel; !strings.HasPrefix(kernel, "weight_grad"+family) {
		t.Fatalf("runs %s", kernel)
	}
	r.run()
	got := make([]float64, weights)
	for i, v := range r.read(r.p.partsBuffer) {
		got[i%weights] += float64(v)
	}
	near(t, "dw", got, want, 2e-5)
}
