package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // for image.Decode, which recognises a format by its first bytes
	_ "image/png"
	"io"

	"golang.org/x/image/draw"

	"igcsearch/search/regular"
)

const (
	// maxPictureBytes and maxPicturePixels bound the memory for one picture,
	// which a damaged header could ask for.
	maxPictureBytes  = 1 << 28
	maxPicturePixels = 1 << 26
	// maxAspect bounds the ratio of a picture's sides: when the shorter one is
	// rescaled, the longer one is rescaled too.
	maxAspect = 20
)

// readFile returns the bytes of a picture's file.
func readFile(path string) ([]byte, error) {
	file, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxPictureBytes+1))
}

// decodePicture decodes a JPEG or PNG file of any name. It ignores the orientation
// that the file may give.
func decodePicture(content []byte) (image.Image, error) {
	switch n := len(content); {
	case n == 0:
		return nil, errors.New("it is empty")
	case n > maxPictureBytes:
		return nil, fmt.Errorf("it has more than %d bytes", maxPictureBytes)
	}
	c, _, err := image.DecodeConfig(bytes.NewReader(content))
	if errors.Is(err, image.ErrFormat) {
		return nil, errors.New("it is neither JPEG nor PNG")
	}
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	switch short, long := min(c.Width, c.Height), max(c.Width, c.Height); {
	case short < 1:
		return nil, fmt.Errorf("it has %d×%d pixels, want some", c.Width, c.Height)
	case c.Width > maxPicturePixels/c.Height:
		return nil, fmt.Errorf("it has %d×%d pixels, want at most %d", c.Width, c.Height, maxPicturePixels)
	case long > maxAspect*short:
		return nil, fmt.Errorf("it has %d×%d pixels, want sides that differ by a factor of %d at most", c.Width,
			c.Height, maxAspect)
	}
	m, _, err := image.Decode(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return m, nil
}

// show writes a picture of the folder to dst (C, size, size). If aug is nil, the
// shorter side is rescaled to f.resize and the centre is cut out, as for evaluation.
// Otherwise the length, the part and the mirror are drawn from seed.
func (f *folder) show(dst []byte, scratch *image.RGBA, name string, aug *Augmentation, seed uint64) error {
	content, err := readFile(f.path(name))
	if err != nil {
		return err
	}
	m, err := decodePicture(content)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path(name), err)
	}
	f.view(dst, scratch, m, aug, seed)
	return nil
}

func (f *folder) view(dst []byte, scratch *image.RGBA, m image.Image, aug *Augmentation, seed uint64) {
	w, h := rescaled(m, f.resize)
	x, y, mirror := (w-f.size)/2, (h-f.size)/2, false
	if aug != nil {
		g := generator(seed, streamAugment)
		w, h = rescaled(m, f.resize+below(&g, aug.ResizeMax-f.resize+1))
		y, x = below(&g, h-f.size+1), below(&g, w-f.size+1)
		mirror = g.Uint64()>>63 == 1 && aug.Mirror
	}
	// The tent kernel grows with the factor of shrinking: it is bilinear if a
	// picture grows, and an average over the area if it shrinks. Only the part
	// that is cut out is computed in full. Transparent pixels become black.
	draw.BiLinear.Scale(scratch, image.Rect(-x, -y, w-x, h-y), m, m.Bounds(), draw.Src, nil)
	plane := f.size * f.size
	for at := range plane {
		to := at
		if mirror {
			row := at / f.size
			to = (2*row+1)*f.size - 1 - at
		}
		for c := range Channels {
			dst[c*plane+to] = scratch.Pix[4*at+c]
		}
	}
}

// rescaled returns the size of a picture whose shorter side has a new length.
func rescaled(m image.Image, length int) (w, h int) {
	w, h = m.Bounds().Dx(), m.Bounds().Dy()
	if w < h {
		return length, (h*length + w/2) / w
	}
	return (w*length + h/2) / h, length
}
