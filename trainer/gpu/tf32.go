package gpu

import (
	"fmt"
	"math"
	"slices"
)

// tf32Channels is from how many channels on the matrix units compute a 1×1
// convolution: with fewer, most of what they multiply would be padding.
const tf32Channels = 16

// tf32Pixels is about how many warps share a convolution, as far as each of them
// then has at least one pixel and at most tf32MostPixels.
const (
	tf32Warps      = 2048
	tf32MostPixels = 8
)

// onMatrixUnits reports whether matrix units compute a convolution, forward and its
// gradients: kernels/conv_tc.h.
func (p *plan) onMatrixUnits(c channels) bool {
	_, _, shared := tf32Tiles(c)
	return p.tf32 && c.kh == 1 && c.kw == 1 && c.stride == 1 && min(c.ci, c.co) >= tf32Channels &&
		shared <= 48<<10 && c.groups*max(c.ci, c.co)*c.h*c.w*lanes <= math.MaxInt32
}

// tf32Tiles divides the output channels of a convolution: each of so many thread
// blocks has some tiles of eight. They need so many bytes of shared memory.
func tf32Tiles(c channels) (blocks, tiles, shared int) {
	all, steps := ceil(c.co, 8), ceil(c.ci, 8)
	blocks = ceil(all, 8)
	tiles = ceil(all, blocks)
	return blocks, tiles, 4 * (steps*tiles*64 + steps*24 + 9*tiles*16)
}

// groupedTF32 launches a convolution on the matrix units, as grouped.
func (p *plan) groupedTF32(c channels, a *convArgs, norm *normArgs) {
	blocks, tiles, shared := tf32Tiles(c)
	most := max(1, c.oh*c.ow*p.blocks*c.groups*blocks/tf32Warps)
	a.pixels = int32(min(most, tf32MostPixels))
	across := ceil(c.oh*c.ow, 8*int(a.pixels))
	grid := [3]int{across, c.groups * blocks, p.blocks}
	if norm != nil {
		parts := p.blocks * across
		a.parts, a.norm, a.sums = int32(parts), *norm, p.floats("sums", 2*c.groups*c.co*parts)
		a.norm.counters = p.counter(grid)
	}
	p.launch(fmt.Sprintf("conv_tf32%s_x%d", inputOf(a), tiles), grid, [3]int{32, 8, 1}, shared, a)
}

// The tiles of weight_grad_tf32, as (16 output, 8 input channels).
var tilesTF32 = [][2]int{{1, 2}, {2, 3}, {2, 4}, {3, 3}, {3, 5}, {4, 4}}

// tf32Positions is how many pixels of 32 pictures a thread block adds up, which are
// then added to those of others.
const tf32Positions = 32

// weightGradTF32 chooses the kernel for the gradient of a convolution's weights on
// the matrix units, by the gradient of its output in one tensor, and its shared memory.
// A thread block has one task, whose pixels its warps share.
func weightGradTF32(c channels) (k weightGradChoice, shared int) {
	// The cost of a tile is its products and what it reads.
	cost := func(t [2]int) int {
		return ceil(c.co, 16*t[0]) * ceil(c.ci, 8*t[1]) * (4*t[0]*t[1] + 4*(2*t[0]+t[1]))
	}
	t := slices.MinFunc(tilesTF32, func(a, b [2]int) int { return cost(a) - cost(b) })
	return weightGradChoice{kernel: fmt.Sprintf("weight_grad_tf32_%dx%d", t[0], t[1]),
		tasks: c.groups * ceil(c.co, 16*t[0]) * ceil(c.ci, 8*t[1]),
		rows:  min(c.oh, ceil(tf32Positions, c.ow)), across: 1}, 4 * max(2*8*t[1], 8*t[0]*128)
}
