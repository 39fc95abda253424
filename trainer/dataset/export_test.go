package dataset

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"image"
	"io"
	"slices"
)

// Small returns the format of a set with fewer records in each file, so that
// tests need not write 180 MB.
func Small(name string, trainRecords, testRecords int) Format {
	f := Format{cifar10}
	switch name {
	case cifar100.name:
		f = Format{cifar100}
	case cifar100Coarse.name:
		f = Format{cifar100Coarse}
	}
	f.trainRecords, f.testRecords, f.sums, f.python.sums = trainRecords, testRecords, nil, nil
	return f
}

// Publish makes the files those that are compared with.
func (f *Format) Publish(files map[string][]byte) {
	f.sums = map[string]string{}
	for _, name := range append(slices.Clone(f.train), f.test) {
		sum := sha256.Sum256(files[name])
		f.sums[name] = hex.EncodeToString(sum[:])
	}
}

// Format opens the unexported format to the tests.
type Format struct{ format }

func (f Format) Open(ctx context.Context, o Options) (*Set, error) {
	o.Name = f.name
	return openCIFAR(ctx, f.format, o)
}

func (f Format) Get(ctx context.Context, o GetOptions) error {
	o.Name = f.name
	return get(ctx, f.format, o)
}

func (f Format) Folder() string       { return f.folder }
func (f Format) RecordBytes() int     { return f.recordBytes() }
func (f Format) LabelCounts() []int   { return f.labels }
func (f Format) Label() int           { return f.label }
func (f Format) TrainFiles() []string { return f.train }

func (f Format) ReadRecords(r io.Reader, records int) (Split, error) {
	var s Split
	err := f.readRecords(context.Background(), r, "some.bin", records, &s)
	return s, err
}

func (f Format) Unpack(archive io.Reader, dir string) error {
	return f.layout(false).unpack(context.Background(), archive, dir)
}

// ParseContentRange opens parseContentRange to the tests.
var ParseContentRange = parseContentRange

// ReadMAT opens readMAT to the tests.
func ReadMAT(ctx context.Context, r io.Reader, pictures int) (Split, error) {
	var s Split
	err := readMAT(ctx, bufio.NewReader(r), "some.mat", pictures, &s)
	return s, err
}

// SVHN opens the unexported format to the tests, with as many pictures in each
// file and held out of each class as they give.
type SVHN struct{ svhnFormat }

func SmallSVHN(train, extra, test, heldTrain, heldExtra int) SVHN {
	f := SVHN{svhn}
	f.train.pictures, f.extra.pictures, f.test.pictures = train, extra, test
	f.heldTrain, f.heldExtra = heldTrain, heldExtra
	return f
}

// Expect sets the checksums and sizes of the files.
func (f *SVHN) Expect(sum func(name string) (md5 string, bytes int64)) {
	for _, file := range []*svhnFile{&f.train, &f.extra, &f.test} {
		file.md5, file.bytes = sum(file.name)
	}
}

func (f SVHN) Open(ctx context.Context, o Options) (*Set, error) {
	o.Name = f.name
	return f.open(ctx, o)
}

func (f SVHN) Get(ctx context.Context, o GetOptions) error {
	o.Name = f.name
	return get(ctx, f.svhnFormat, o)
}

// Decoders sets how many goroutines decode the pictures of a folder.
func (s *Set) Decoders(n int) { s.folder.decoders = n }

// Rescale opens the view of a picture to the tests.
func Rescale(m image.Image, size, resize, resizeMax int, seed uint64) []byte {
	f := &folder{size: size, resize: resize}
	var aug *Augmentation
	if resizeMax > 0 {
		aug = &Augmentation{ResizeMax: resizeMax, Mirror: true}
	}
	dst := make([]byte, Channels*size*size)
	f.view(dst, image.NewRGBA(image.Rect(0, 0, size, size)), m, aug, seed)
	return dst
}

// Handsigns returns all pictures of the set at 16 or 32 pixels, and the student
// of each.
func Handsigns(side int) (Split, []int) {
	all := readHandsigns(side)
	return all.Split, all.students
}

// SyntheticKinds are the kinds of patches of each class.
var SyntheticKinds = synthetic.own

// Python returns the files of the Python version, those of the training pictures first, and the one with the names.
func (f Format) Python() (pictures []string, meta string) {
	return append(slices.Clone(f.python.train), f.python.test), f.python.meta
}

func (f Format) PythonFolder() string { return f.python.folder }
func (f Format) TestFile() string     { return f.test }

// PublishPython sets the checksum of the archive of the Python version.
func (f *Format) PublishPython(md5 string) { f.python.md5 = md5 }

// ReadPickle reads a pickle as one of a set.
func (f Format) ReadPickle(file []byte) { pickledDict("some", file, 1000) }
