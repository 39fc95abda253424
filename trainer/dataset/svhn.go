package dataset

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"

	"igcsearch/search/regular"
)

// svhnFormat is the data set of house numbers (Netzer et al., Reading Digits in
// Natural Images with Unsupervised Feature Learning, 2011) in its three files
// of cropped digits, http://ufldl.stanford.edu/housenumbers. Its pictures are
// 32×32 like CIFAR's.
type svhnFormat struct {
	name   string
	folder string // for the files that Get downloads
	url    string // of the folder that has the files

	train, extra, test svhnFile

	// heldTrain and heldExtra are how many pictures of each class of the two
	// files are the validation pictures (Sermanet et al., Convolutional Neural
	// Networks Applied to House Numbers Digit Classification, 2012).
	heldTrain, heldExtra int
}

type svhnFile struct {
	name     string
	md5      string // from torchvision; the publisher gives none
	bytes    int64
	pictures int
}

var svhn = svhnFormat{
	name: "svhn", folder: "svhn", url: "http://ufldl.stanford.edu/housenumbers",
	train:     svhnFile{"train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", 182040794, 73257},
	extra:     svhnFile{"extra_32x32.mat", "a93ce644f1a588dc4d68dda5feec44a7", 1329278602, 531131},
	test:      svhnFile{"test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", 64275384, 26032},
	heldTrain: 400, heldExtra: 200,
}

// digits are the classes of svhn and handsigns.
var digits = []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}

func (f svhnFormat) locate(dir string) (string, error) {
	return locate(f.name, f.name, dir, f.folder, []string{f.train.name, f.extra.name, f.test.name})
}

func (f svhnFormat) open(ctx context.Context, o Options) (*Set, error) {
	if all := len(digits) * (f.heldTrain + f.heldExtra); o.Validation != 0 && o.Validation != all {
		return nil, fmt.Errorf("%s: validation is %d: "+
			"want 0 (none) or %d (%d of each class of the training file and %d of the extra file)",
			f.name, o.Validation, all, f.heldTrain, f.heldExtra)
	}
	dir, err := f.locate(o.Dir)
	if err != nil {
		return nil, err
	}
	var train, test Split
	train.grow(f.train.pictures + f.extra.pictures)
	test.grow(f.test.pictures)
	var unofficial []string
	for _, part := range []struct {
		file svhnFile
		into *Split
	}{{f.test, &test}, {f.train, &train}, {f.extra, &train}} {
		sum, err := part.file.read(ctx, filepath.Join(dir, part.file.name), part.into)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, missing(err, f.name, "the files that are missing"))
		}
		if sum != part.file.md5 {
			unofficial = append(unofficial, part.file.name)
		}
	}
	s := &Set{Name: o.Name, Classes: digits, C: Channels, H: cifarSide, W: cifarSide, Unofficial: unofficial,
		trainFiles: []pictureFile{{f.train.name, f.train.pictures}, {f.extra.name, f.extra.pictures}},
		testFiles:  []pictureFile{{f.test.name, f.test.pictures}}}
	if err := s.split(o, train, test, f.hold); err != nil {
		return nil, err
	}
	return s, nil
}

// read also returns the MD5 of the file.
func (f svhnFile) read(ctx context.Context, path string, into *Split) (sum string, err error) {
	file, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := md5.New()
	r := bufio.NewReaderSize(io.TeeReader(file, h), 1<<20)
	if err := readMAT(ctx, r, path, f.pictures, into); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, r); err != nil { // to the end of the file
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// hold draws the validation pictures. In the list of all pictures, those of the
// training file come before those of the extra file.
func (f svhnFormat) hold(byClass [][]int, n int, _ uint64) ([]int, error) {
	if n == 0 {
		return nil, nil
	}
	held := make([][]int, len(byClass))
	for class, pictures := range byClass {
		train, extra := f.heldTrain, f.heldExtra
		var rest []int
		for _, i := range pictures {
			left := &train
			if i >= f.train.pictures {
				left = &extra
			}
			if *left == 0 {
				rest = append(rest, i)
				continue
			}
			*left--
			held[class] = append(held[class], i)
		}
		if train > 0 || extra > 0 {
			return nil, fmt.Errorf("of class %s, %d pictures are missing in %s and %d in %s for validation",
				digits[class], train, f.train.name, extra, f.extra.name)
		}
		byClass[class] = rest
	}
	return take(held, n), nil
}
