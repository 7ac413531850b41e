package uploader

// Sizes of requests. S3 allows 10,000 parts of 5 MiB to 5 GiB, the last one
// smaller. A file that is sent as a whole saves the two round trips that a
// multipart upload costs, and an instrument's usual one is (18 MB), unless parts
// side by side are faster all the same; see outlook. Of a larger one, parts that
// are under way when the daemon is killed or the link breaks are sent again: so
// they are small, though no more than are a small share of the file. Beyond that
// many some stores on disks cannot note them all, as versitygw on ext4 from some
// 300 on.
const (
	wholeSize   = 32 << 20
	leastPart   = 5 << 20 // that stores take
	minPartSize = 8 << 20
	midPartSize = 32 << 20 // that parts grow to before there are more of them
	fewParts    = 256      // up to that size
	maxParts    = 10_000
	partUnit    = 1 << 20
)

// plan is how files are cut into parts.
type plan struct {
	whole   int64 // the largest file that one PutObject carries, in bytes
	minPart int64 // smallest part size of a larger one in bytes, a whole number of MiB
	split   int64 // smallest part size of one that could go as a whole; 0: each goes so
}

// partSize returns the size of each part but the last for a file of that many
// bytes that goes in parts whatever the link is like: the smallest whole number of
// MiB, from the minimum up, that needs at most 256 parts, or 10,000 where they would
// be larger than 32 MiB.
func (p plan) partSize(size int64) int64 {
	least := max(ceil(size, maxParts), min(ceil(size, fewParts), midPartSize))
	return max(p.minPart, ceil(least, partUnit)*partUnit)
}

// ceil returns n/d, rounded up.
func ceil(n, d int64) int64 { return (n + d - 1) / d }

// parts returns how many requests carry a file of that many bytes, one where it
// could go as a whole; an empty file needs one too.
func (p plan) parts(size int64) int {
	if size <= p.whole {
		return 1
	}
	return partsOf(size, p.partSize(size))
}

// partsOf returns how many parts of that size make a file.
func partsOf(size, partSize int64) int { return int(max(1, ceil(size, partSize))) }

// worthIt is how much sooner a file must arrive in parts to be cut: what is known
// of the link is of a moment ago, and the parts cost the store, and our disk, more
// than the whole.
const (
	worthShare = 0.2
	worthTime  = 0.05 // seconds
)

// cut returns the size of the parts by which a file arrives sooner that could go as
// a whole; 0 where it does not. They are of one size, so that their number, which
// an ETag has, tells how the file was cut.
//
// Where a file would arrive sooner once the connections are warm, it is cut as soon
// as that costs it nothing, which is while none is: else one would carry each file,
// and the others never become warm.
func (p plan) cut(size int64, o outlook) (partSize int64) {
	if p.split == 0 || !o.known() {
		return 0
	}
	if partSize = p.faster(size, o); partSize > 0 {
		return partSize
	}
	partSize = p.faster(size, o.warmed())
	if partSize > 0 && o.inParts(partSize, partsOf(size, partSize)) > o.whole(size) {
		return 0
	}
	return partSize
}

// faster returns the size of the parts by which a file arrives sooner than as a
// whole, so much that it is worth it; 0 where there is none.
func (p plan) faster(size int64, o outlook) (partSize int64) {
	whole := o.whole(size)
	best := min((1-worthShare)*whole, whole-worthTime)
	for n := 2; n <= min(o.slots, len(o.path.Rates)); n++ {
		each := ceil(size, int64(n))
		if each < p.split {
			break
		}
		if t := o.inParts(each, n); t < best {
			best, partSize = t, each
		}
	}
	return partSize
}

// cuts returns the part sizes by which a file may have been cut into so many parts,
// by us or by others.
func (p plan) cuts(size int64, parts int) (sizes []int64) {
	if usual := p.partSize(size); partsOf(size, usual) == parts {
		sizes = append(sizes, usual)
	}
	if each := ceil(size, max(1, int64(parts))); p.split > 0 && size <= p.whole && parts > 1 && each >= p.split {
		sizes = append(sizes, each)
	}
	return sizes
}
