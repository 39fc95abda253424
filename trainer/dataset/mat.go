package dataset

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
)

// The types of elements and the classes of arrays in a MAT-file of level 5, as far as
// SVHN's files may have them (MATLAB, MAT-File Format, R2019b, Chapter 1).
const (
	miINT8       = 1
	miUINT8      = 2
	miINT16      = 3
	miUINT16     = 4
	miINT32      = 5
	miUINT32     = 6
	miSINGLE     = 7
	miDOUBLE     = 9
	miMATRIX     = 14
	miCOMPRESSED = 15

	mxDOUBLE = 6
	mxUINT8  = 9
	mxUINT32 = 13 // from mxDOUBLE to here: numbers

	flagComplex = 0x800
)

// maxNameBytes is the longest name that MATLAB allows, and maxDims more
// dimensions than SVHN has.
const (
	maxNameBytes = 63
	maxDims      = 32
)

// mat reads the elements of a MAT-file, or of a compressed element of one, from
// start to end.
type mat struct {
	r     io.Reader
	order binary.ByteOrder
	at    int64  // bytes read
	where string // the name of the input, for errors
}

func (m *mat) errorf(at int64, format string, a ...any) error {
	return fmt.Errorf("%s: byte %d: %w", m.where, at, fmt.Errorf(format, a...))
}

// Read counts.
func (m *mat) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.at += int64(n)
	return n, err
}

// full fills p; what names it in an error.
func (m *mat) full(p []byte, what string) error {
	_, err := io.ReadFull(m, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%s: ends at byte %d, in %s", m.where, m.at, what)
	}
	if err != nil {
		return m.errorf(m.at, "read %s: %w", what, err)
	}
	return nil
}

// skip reads n bytes that do not matter.
func (m *mat) skip(n int64, what string) error {
	_, err := io.CopyN(io.Discard, m, n)
	if err == io.EOF {
		return fmt.Errorf("%s: ends at byte %d, in %s", m.where, m.at, what)
	}
	if err != nil {
		return m.errorf(m.at, "read %s: %w", what, err)
	}
	return nil
}

// tag is the head of an element. An element of at most four bytes may be small: its
// data are in the head.
type tag struct {
	at    int64 // of its first byte
	kind  uint32
	bytes int64
	small []byte // nil: the data follow
}

func (m *mat) tag(what string) (tag, error) {
	t := tag{at: m.at}
	var head [8]byte
	if err := m.full(head[:], "the head of "+what); err != nil {
		return t, err
	}
	t.kind, t.bytes = m.order.Uint32(head[:]), int64(m.order.Uint32(head[4:]))
	if n := t.kind >> 16; n > 0 {
		if n > 4 {
			return t, m.errorf(t.at, "%s is a small element of %d bytes, want at most 4", what, n)
		}
		t.kind, t.bytes, t.small = t.kind&0xffff, int64(n), head[4:4+n]
	}
	return t, nil
}

// data reads the data after a tag into p, which has their size, and the padding to a
// multiple of 8 bytes.
func (m *mat) data(t tag, p []byte, what string) error {
	if t.small != nil {
		copy(p, t.small)
		return nil
	}
	if err := m.full(p, what); err != nil {
		return err
	}
	return m.pad(t.bytes, what)
}

func (m *mat) pad(n int64, what string) error {
	return m.skip(-n&7, "the padding of "+what)
}

// element reads a whole element of at most so many bytes.
func (m *mat) element(what string, most int64, kinds ...uint32) ([]byte, error) {
	t, err := m.tag(what)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(kinds, t.kind) {
		return nil, m.errorf(t.at, "%s has the type %d, want %d", what, t.kind, kinds[0])
	}
	if t.bytes > most {
		return nil, m.errorf(t.at, "%s has %d bytes, want at most %d", what, t.bytes, most)
	}
	p := make([]byte, t.bytes)
	return p, m.data(t, p, what)
}

// readMAT appends the pictures of a file of SVHN to a split; there must be the given
// number. It reads the variables X, uint8 (row, column, channel, picture) in
// MATLAB's order, where the first index runs fastest, and y, the digits, with 10
// for 0. It ignores other variables. It needs only the memory of the pictures, with
// any content of the file. Errors name the input as path.
func readMAT(ctx context.Context, r *bufio.Reader, path string, pictures int, into *Split) error {
	m := &mat{r: r, where: path}
	var head [128]byte
	if err := m.full(head[:], "the head of the file"); err != nil {
		return err
	}
	switch string(head[126:]) {
	case "IM":
		m.order = binary.LittleEndian
	case "MI":
		m.order = binary.BigEndian
	default:
		return m.errorf(126, "%q, want \"IM\" or \"MI\": this is no MAT-file of level 5", head[126:])
	}
	if version := m.order.Uint16(head[124:]); version != 0x100 {
		return m.errorf(124, "the version is %#x, want 0x100", version)
	}
	v := &variables{pictures: pictures, into: into}
	for {
		// The file may end only where a variable would begin.
		if _, err := r.Peek(1); err == io.EOF {
			break
		}
		t, err := m.tag("a variable")
		if err != nil {
			return err
		}
		switch {
		case t.kind == miMATRIX && t.small == nil:
			if _, err := v.read(ctx, m, t); err != nil {
				return err
			}
			left := t.at + 8 + t.bytes - m.at // none of a variable that is known
			if left < 0 {
				return m.errorf(t.at, "a variable has %d bytes, but its name is beyond them", t.bytes)
			}
			if err := m.skip(left, "a variable"); err != nil {
				return err
			}
		case t.kind == miCOMPRESSED && t.small == nil:
			if err := v.inflate(ctx, m, t); err != nil {
				return err
			}
		default:
			return m.errorf(t.at, "a variable has the type %d, want %d or %d, compressed", t.kind, miMATRIX,
				miCOMPRESSED)
		}
	}
	switch {
	case !v.haveX:
		return fmt.Errorf("%s: ends at byte %d without the variable X", path, m.at)
	case !v.haveY:
		return fmt.Errorf("%s: ends at byte %d without the variable y", path, m.at)
	}
	return nil
}

// variables are what readMAT looks for.
type variables struct {
	pictures     int
	into         *Split
	haveX, haveY bool
}

// inflate reads a variable that is compressed by zlib.
func (v *variables) inflate(ctx context.Context, m *mat, t tag) error {
	compressed := io.LimitReader(m, t.bytes)
	z, err := zlib.NewReader(bufio.NewReader(compressed))
	if err != nil {
		return m.errorf(t.at, "a compressed variable: %w", noEOF(err))
	}
	inner := &mat{r: z, order: m.order, where: fmt.Sprintf("%s: in the variable compressed at byte %d", m.where, t.at)}
	it, err := inner.tag("a variable")
	if err != nil {
		return err
	}
	if it.kind != miMATRIX || it.small != nil {
		return inner.errorf(0, "a variable has the type %d, want %d", it.kind, miMATRIX)
	}
	known, err := v.read(ctx, inner, it)
	if err != nil {
		return err
	}
	if known {
		// The checksum is at the end.
		if n, err := io.ReadFull(inner, make([]byte, 1)); n > 0 {
			return inner.errorf(inner.at-1, "there are more bytes, want the end there")
		} else if err != io.EOF {
			return inner.errorf(inner.at, "%w", noEOF(err))
		}
	}
	return m.skip(t.at+8+t.bytes-m.at, "a compressed variable")
}

// noEOF replaces io.EOF where the input must not end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// read reads the variable that begins after t. If it is not X or y, read stops after
// the name and returns false.
func (v *variables) read(ctx context.Context, m *mat, t tag) (known bool, err error) {
	flagsAt := m.at
	flags, err := m.element("the flags of a variable", 8, miUINT32)
	if err != nil {
		return false, err
	}
	if len(flags) != 8 {
		return false, m.errorf(flagsAt, "the flags of a variable have %d bytes, want 8", len(flags))
	}
	dimsAt := m.at
	text, err := m.element("the dimensions of a variable", 4*maxDims, miINT32)
	if err != nil {
		return false, err
	}
	if len(text)%4 != 0 {
		return false, m.errorf(dimsAt, "the dimensions of a variable have %d bytes, want a multiple of 4", len(text))
	}
	var dims []uint32
	for i := 0; i < len(text); i += 4 {
		dims = append(dims, m.order.Uint32(text[i:]))
	}
	name, err := m.element("the name of a variable", maxNameBytes, miINT8, miUINT8)
	if err != nil {
		return false, err
	}
	have := &v.haveX
	switch string(name) {
	case "X":
	case "y":
		have = &v.haveY
	default:
		return false, nil
	}
	if *have {
		return true, m.errorf(t.at, "the variable %s comes a second time", name)
	}
	*have = true
	n := uint32(v.pictures)
	class := m.order.Uint32(flags)
	want, least, most := []uint32{cifarSide, cifarSide, Channels, n}, uint32(mxUINT8), uint32(mxUINT8)
	if have == &v.haveY {
		want, least, most = []uint32{n, 1}, mxDOUBLE, mxUINT32
	}
	if c := class & 0xff; c < least || c > most || class&flagComplex != 0 {
		return true, m.errorf(flagsAt, "the flags of %s are %#x, want real numbers of class %d", name, class, mxUINT8)
	}
	if !slices.Equal(dims, want) {
		return true, m.errorf(dimsAt, "the dimensions of %s are %d, want %d", name, dims, want)
	}
	if have == &v.haveX {
		err = v.readX(ctx, m)
	} else {
		err = v.readY(m)
	}
	if err == nil && m.at != t.at+8+t.bytes {
		err = m.errorf(m.at, "%s ends here, want its end at byte %d", name, t.at+8+t.bytes)
	}
	return true, err
}

func (v *variables) readX(ctx context.Context, m *mat) error {
	t, err := m.tag("the pixels")
	if err != nil {
		return err
	}
	if want := int64(v.pictures) * cifarPixels; t.kind != miUINT8 || t.small != nil || t.bytes != want {
		return m.errorf(t.at, "the pixels have the type %d and %d bytes, want %d and %d", t.kind, t.bytes, miUINT8,
			want)
	}
	var picture [cifarPixels]byte // (channel, column, row)
	for i := range v.pictures {
		if i%1000 == 0 && ctx.Err() != nil {
			return fmt.Errorf("read %s: %w", m.where, ctx.Err())
		}
		if err := m.full(picture[:], "the pixels"); err != nil {
			return err
		}
		start := len(v.into.Pixels)
		v.into.Pixels = append(v.into.Pixels, picture[:]...)
		plane := v.into.Pixels[start:]
		for c := 0; c < cifarPixels; c += cifarSide * cifarSide {
			for y := range cifarSide {
				for x := range cifarSide {
					plane[c+y*cifarSide+x] = picture[c+x*cifarSide+y]
				}
			}
		}
	}
	return m.pad(t.bytes, "the pixels")
}

func (v *variables) readY(m *mat) error {
	t, err := m.tag("the labels")
	if err != nil {
		return err
	}
	// MATLAB stores whole numbers in the smallest type that can hold them, in a
	// variable of any class.
	width := map[uint32]int{miINT8: 1, miUINT8: 1, miINT16: 2, miUINT16: 2, miINT32: 4, miUINT32: 4, miSINGLE: 4,
		miDOUBLE: 8}[t.kind]
	if width == 0 || t.bytes != int64(width)*int64(v.pictures) {
		return m.errorf(t.at, "the labels have the type %d and %d bytes, want %d numbers, of type %d for one", t.kind,
			t.bytes, v.pictures, miUINT8)
	}
	at := m.at
	if t.small != nil {
		at = t.at + 4
	}
	// They are read one by one: a wrong length in the file must not take memory.
	data := io.Reader(m)
	if t.small != nil {
		data = bytes.NewReader(t.small)
	}
	one := make([]byte, width)
	for i := range v.pictures {
		if _, err := io.ReadFull(data, one); err == io.EOF || err == io.ErrUnexpectedEOF {
			return fmt.Errorf("%s: ends at byte %d, in the labels", m.where, m.at)
		} else if err != nil {
			return m.errorf(m.at, "read the labels: %w", err)
		}
		var label float64
		switch t.kind {
		case miINT8, miUINT8: // negative ones are too large either way
			label = float64(one[0])
		case miINT16, miUINT16:
			label = float64(m.order.Uint16(one))
		case miINT32, miUINT32:
			label = float64(m.order.Uint32(one))
		case miSINGLE:
			label = float64(math.Float32frombits(m.order.Uint32(one)))
		case miDOUBLE:
			label = math.Float64frombits(m.order.Uint64(one))
		}
		if label != math.Trunc(label) || !(label >= 1 && label <= 10) {
			return m.errorf(at+int64(i*width), "the label of picture %d is %g, want a whole number from 1 to 10", i,
				label)
		}
		v.into.Labels = append(v.into.Labels, uint16(label)%10)
	}
	if t.small != nil {
		return nil
	}
	return m.pad(t.bytes, "the labels")
}
