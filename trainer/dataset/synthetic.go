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

// synthetic is the built-in set. Each picture shows two different motifs of
// five, and the pair of motifs is its class. A motif is a patch of stripes: an
// orientation, and which of the three channels run against the other two.
// Neither tells a motif by itself: the stripes of a distractor have the
// orientation of one motif and the channels of another. Where the patches lie,
// their phase, strength and stripe width are random, and so are the colour of
// the ground and the noise of each pixel.
//
// A motif is its own mirror image, phases aside, and keeps off the border, so
// mirroring and shifting by two pixels do not change a class. Because phases
// are random, the average colour of a picture says nothing about it.
var synthetic = struct {
	name                string
	train, test         int // pictures unless more are asked for
	maxTrain, maxTest   int
	seed                uint64
	stripes             []int    // angles of stripes, in 1/1024 turn
	signs               [][3]int // of the channels
	motifs, distractors [][2]int // of stripes and signs
	strength            [2]int   // of a motif, in grey levels: least, and how much more
	distractorStrength  [2]int
	noise               int // standard deviation, in grey levels
}{
	name:  "synthetic",
	train: 2000, test: 1000, maxTrain: 10000, maxTest: 5000,
	seed:        20170709,
	stripes:     []int{0, 128, 256},
	signs:       [][3]int{{1, 1, 1}, {1, 1, -1}, {1, -1, 1}, {-1, 1, 1}},
	motifs:      [][2]int{{0, 0}, {0, 1}, {1, 2}, {2, 1}, {2, 3}},
	distractors: [][2]int{{0, 2}, {0, 3}, {1, 0}, {1, 1}, {1, 3}, {2, 0}, {2, 2}},
	strength:    [2]int{36, 36}, distractorStrength: [2]int{36, 36},
	noise: 40,
}

func openSynthetic(ctx context.Context, o Options) (*Set, error) {
	// What is asked for is always the first pictures of one endless list.
	y := &synthetic
	train, test := max(y.train, o.TrainPictures+o.Validation), max(y.test, o.TestPictures)
	if train > y.maxTrain {
		return nil, fmt.Errorf("%s: %d pictures for training and validation: want at most %d", y.name, train, y.maxTrain)
	}
	if test > y.maxTest {
		return nil, fmt.Errorf("%s: test_pictures is %d: want at most %d", y.name, test, y.maxTest)
	}
	classes := make([]string, 0, 10)
	var pairs [][2]int
	for b := range y.motifs {
		for a := range b {
			pairs = append(pairs, [2]int{a, b})
			classes = append(classes, fmt.Sprintf("motifs %d and %d", a+1, b+1))
		}
	}
	trainSplit, err := drawSplit(ctx, pairs, train, 0)
	if err != nil {
		return nil, err
	}
	testSplit, err := drawSplit(ctx, pairs, test, 1)
	if err != nil {
		return nil, err
	}
	return newSet(o, classes, syntheticSide, syntheticSide, trainSplit, testSplit)
}

// drawSplit draws the first n pictures of a list; classes take turns.
func drawSplit(ctx context.Context, classes [][2]int, n int, list uint64) (Split, error) {
	s := Split{Pixels: make([]byte, n*syntheticPixels), Labels: make([]uint16, n)}
	for i := range n {
		if i%1000 == 0 && ctx.Err() != nil {
			return Split{}, fmt.Errorf("%s: %w", synthetic.name, ctx.Err())
		}
		class := i % len(classes)
		s.Labels[i] = uint16(class)
		g := generator(mix(synthetic.seed, uint64(i)), streamSynthetic+list<<8)
		drawPicture(s.Pixels[i*syntheticPixels:(i+1)*syntheticPixels], classes[class], &g)
	}
	return s, nil
}

// sine is a turn of 1024 steps, in 1/16384. The pictures are made by integer
// arithmetic so that they are the same on every machine: compilers may fuse or
// reorder floating-point operations.
var sine = func() (t [1024]int) {
	for i := range t {
		t[i] = int(math.RoundToEven(16384 * math.Sin(2*math.Pi*float64(i)/1024)))
	}
	return t
}()

// drawPicture draws a picture (C, H, W) with the two given motifs.
func drawPicture(pixels []byte, motifs [2]int, g *rand.PCG) {
	y := &synthetic
	const plane = syntheticSide * syntheticSide
	var canvas [syntheticPixels]int // (C, H, W), in 1/16 grey level
	for c := range Channels {
		ground := 16 * (96 + below(g, 64))
		for i := range plane {
			// Four bytes' sum, less its mean, has a standard deviation of
			// 2·73.9 grey levels.
			u := g.Uint64()
			sum := int(u&255+u>>8&255+u>>16&255+u>>24&255) - 510
			canvas[c*plane+i] = ground + sum*y.noise*16/148
		}
	}
	for _, m := range motifs {
		drawPatch(&canvas, y.motifs[m], y.strength, g)
	}
	drawPatch(&canvas, y.distractors[below(g, len(y.distractors))], y.distractorStrength, g)
	for i := range pixels {
		pixels[i] = uint8(max(0, min(255, (canvas[i]+8)>>4)))
	}
}

// drawPatch adds a round patch of stripes that fades towards its edge.
func drawPatch(canvas *[syntheticPixels]int, kind [2]int, strength [2]int, g *rand.PCG) {
	const radius = 5 // pixels
	y := &synthetic
	angle := y.stripes[kind[0]]
	if below(g, 2) == 1 {
		angle = 1024 - angle // the mirror image
	}
	// Positions in quarters of a pixel, centres 5 to 10 pixels from the edge.
	cy, cx := 4*5+below(g, 4*5+1), 4*5+below(g, 4*5+1)
	wave := 14 + below(g, 5) // quarters of a pixel
	phase := below(g, 1024)
	gain := strength[0] + below(g, strength[1]+1)
	// Stripes along the angle change across it.
	ky, kx := sine[(angle+256)&1023], sine[angle&1023]
	for py := range syntheticSide {
		for px := range syntheticSide {
			dy, dx := 4*py-cy, 4*px-cx
			fade := 16*radius*radius - dy*dy - dx*dx // 0 … 400
			if fade <= 0 {
				continue
			}
			turn := (dy*ky + dx*kx) / wave >> 4 // in 1/1024 turn
			v := sine[(turn+phase)&1023] * gain / 1024 * fade / 400 * fade / 400
			for c, sign := range y.signs[kind[1]] {
				canvas[(c*syntheticSide+py)*syntheticSide+px] += sign * v
			}
		}
	}
}
