package dataset

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
)

// Synthetic pictures are 16×16.
const (
	syntheticSide   = 16
	syntheticPixels = Channels * syntheticSide * syntheticSide // bytes of a picture
)

// synthetic is the set that is generated. Each picture shows six small patches
// of stripes in noise. There are 24 kinds of patches: a kind is a direction of the
// stripes, the channels with inverted stripes, and a width. A class is a
// distribution over the kinds: 85 of 100 patches are drawn from the six kinds of
// the class, the others from all kinds. Each kind belongs to two or three classes,
// so no single patch identifies a class, and some classes are more alike than
// others.
//
// So the set is graded: the better a network distinguishes the kinds, the more
// patches it counts correctly, and the higher is its accuracy. If a class were a
// pair of motifs, a network would either find a motif or not, and its accuracy
// would change much from seed to seed.
//
// A patch, its mirror image and all its phases are of one kind. So a mirrored
// picture has the same class, and the average colour of a picture says nothing
// about its class.
var synthetic = struct {
	name              string
	train, test       int // pictures unless more are asked for
	maxTrain, maxTest int
	seed              uint64

	// A kind is a direction, signs and a width: k%3, k/3%4 and k/12.
	directions []int    // angles of the stripes, in 1/1024 turn
	signs      [][3]int // of the channels
	widths     []int    // from a stripe to the next, in quarters of a pixel
	own        [][6]int // the kinds of each class

	patches  int
	purity   int    // how many of 100 patches are of the own kinds
	strength [2]int // of a patch, in grey levels: the least, and the range above it
	radius   int    // of a patch, in pixels
	noise    int    // standard deviation, in grey levels
}{
	name:  "synthetic",
	train: 2000, test: 1000, maxTrain: 10000, maxTest: 5000,
	seed:       20170709,
	directions: []int{0, 128, 256},
	signs:      [][3]int{{1, 1, 1}, {1, 1, -1}, {1, -1, 1}, {-1, 1, 1}},
	widths:     []int{11, 22},
	// These were drawn at random once, with each kind in two or three classes.
	own: [][6]int{
		{5, 22, 2, 3, 20, 6},
		{8, 0, 9, 10, 19, 17},
		{18, 4, 21, 13, 15, 14},
		{12, 1, 11, 23, 16, 7},
		{0, 15, 16, 12, 6, 10},
		{23, 3, 18, 9, 1, 17},
		{21, 14, 13, 8, 5, 19},
		{7, 20, 4, 22, 11, 2},
		{16, 23, 3, 2, 20, 5},
		{19, 12, 13, 4, 17, 0},
	},
	patches: 6, purity: 85,
	strength: [2]int{50, 25}, radius: 4,
	noise: 40,
}

func openSynthetic(ctx context.Context, o Options) (*Set, error) {
	// The pictures are always the first ones of the same endless list.
	y := &synthetic
	train, test := max(y.train, o.TrainPictures+o.Validation), max(y.test, o.TestPictures)
	if train > y.maxTrain {
		return nil, fmt.Errorf("%s: %d pictures for training and validation: want at most %d", y.name, train,
			y.maxTrain)
	}
	if test > y.maxTest {
		return nil, fmt.Errorf("%s: test_pictures is %d: want at most %d", y.name, test, y.maxTest)
	}
	var classes []string
	for class := range y.own {
		classes = append(classes, fmt.Sprintf("mixture %d", class+1))
	}
	trainSplit, err := drawSplit(ctx, train, 0)
	if err != nil {
		return nil, err
	}
	testSplit, err := drawSplit(ctx, test, 1)
	if err != nil {
		return nil, err
	}
	s := &Set{Name: o.Name, Classes: classes, C: Channels, H: syntheticSide, W: syntheticSide}
	if err := s.split(o, trainSplit, testSplit, balanced); err != nil {
		return nil, err
	}
	return s, nil
}

// drawSplit draws the first n pictures of a list; classes take turns.
func drawSplit(ctx context.Context, n int, list uint64) (Split, error) {
	s := Split{Pixels: make([]byte, n*syntheticPixels), Labels: make([]uint16, n)}
	for i := range n {
		if i%1000 == 0 && ctx.Err() != nil {
			return Split{}, fmt.Errorf("%s: %w", synthetic.name, ctx.Err())
		}
		class := i % len(synthetic.own)
		s.Labels[i] = uint16(class)
		g := generator(mix(synthetic.seed, uint64(i)), streamSynthetic+list<<8)
		drawPicture(s.Pixels[i*syntheticPixels:(i+1)*syntheticPixels], class, &g)
	}
	return s, nil
}

// sine is a turn of 1024 steps, in 1/16384. Integer arithmetic makes the same
// pictures on every machine; compilers may fuse or reorder floating-point
// operations.
var sine = func() (t [1024]int) {
	for i := range t {
		t[i] = int(math.RoundToEven(16384 * math.Sin(2*math.Pi*float64(i)/1024)))
	}
	return t
}()

// drawPicture draws a picture (C, H, W) of a class.
func drawPicture(pixels []byte, class int, g *rand.PCG) {
	y := &synthetic
	const plane = syntheticSide * syntheticSide
	var canvas [syntheticPixels]int // (C, H, W), in 1/16 grey level
	for c := range Channels {
		ground := 16 * (112 + below(g, 32))
		for i := range plane {
			// The sum of four bytes, minus its mean, has a standard deviation of
			// 2·73.9 grey levels.
			u := g.Uint64()
			sum := int(u&255+u>>8&255+u>>16&255+u>>24&255) - 510
			canvas[c*plane+i] = ground + sum*y.noise*16/148
		}
	}
	kinds := len(y.directions) * len(y.signs) * len(y.widths)
	for range y.patches {
		kind := below(g, kinds)
		if own := y.own[class]; below(g, 100) < y.purity {
			kind = own[below(g, len(own))]
		}
		drawPatch(&canvas, kind, g)
	}
	for i := range pixels {
		pixels[i] = uint8(max(0, min(255, (canvas[i]+8)>>4)))
	}
}

// drawPatch adds a round patch of stripes that fades towards its edge.
func drawPatch(canvas *[syntheticPixels]int, kind int, g *rand.PCG) {
	y := &synthetic
	angle := y.directions[kind%3]
	signs := y.signs[kind/3%4]
	width := y.widths[kind/12]
	if below(g, 2) == 1 {
		angle = 1024 - angle // the mirror image
	}
	// Positions in quarters of a pixel, centres 2 to 14 pixels from the edge.
	cy, cx := 4*2+below(g, 4*12+1), 4*2+below(g, 4*12+1)
	phase := below(g, 1024)
	gain := y.strength[0] + below(g, y.strength[1]+1)
	// Stripes along the angle change across it.
	ky, kx := sine[(angle+256)&1023], sine[angle&1023]
	edge := 16 * y.radius * y.radius
	for py := range syntheticSide {
		for px := range syntheticSide {
			dy, dx := 4*py-cy, 4*px-cx
			fade := edge - dy*dy - dx*dx // 0 … edge
			if fade <= 0 {
				continue
			}
			turn := (dy*ky + dx*kx) / width >> 4 // in 1/1024 turn
			v := sine[(turn+phase)&1023] * gain / 1024 * fade / edge
			for c, sign := range signs {
				canvas[(c*syntheticSide+py)*syntheticSide+px] += sign * v
			}
		}
	}
}
