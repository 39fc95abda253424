package plots

// Style is the size of figures of a venue: figures of these widths are included without being scaled.
type Style struct {
	Name string
	// Column and Page are the widths in inches of one column and of all text.
	Column, Page float64
	// TextSize is that of Options: captions and other text of the venue are about as large.
	TextSize float64
	Font     Font
	// Source is where the widths are from.
	Source string
}

// Options returns the options of a figure over one column, or over the whole page.
func (s Style) Options(page bool) Options {
	o := Options{Width: s.Column, TextSize: s.TextSize, Font: s.Font}
	if page {
		o.Width = s.Page
	}
	return o
}

// Styles are the venues, by their names.
func Styles() []Style {
	return []Style{
		{"cvpr", 3.25, 6.875, 8, Serif, "author kit of CVPR and ICCV, as tueplots has it"},
		{"elsevier", 90 / 25.4, 190 / 25.4, 8, Sans,
			"Elsevier, Artwork sizing: 90 and 190 mm, lettering of 7 pt, which is that of ticks and legends here"},
		{"iclr", 5.5, 5.5, 9, Serif, "iclr2024_conference.sty, as tueplots has it"},
		{"icml", 3.25, 6.75, 8, Serif, "icml2024.sty, as tueplots has it; captions of 9 pt"},
		{"ieee", 3.5, 7.16, 8, Serif, "IEEE Author Center, Size Requirements for Graphics; callouts of 8 pt"},
		{"jmlr", 6, 6, 10, Serif, "jmlr.org/format/format.html"},
		{"lncs", 122 / 25.4, 122 / 25.4, 8, Serif, "Springer LNCS and ECCV: text of 122 mm"},
		{"nature", 89 / 25.4, 183 / 25.4, 7, Sans, "Nature research figure guide: 89 and 183 mm, Arial or Helvetica of 5 to 7 pt"},
		{"neurips", 5.5, 5.5, 9, Serif, "neurips_2024.sty, as tueplots has it"},
	}
}
