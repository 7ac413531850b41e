package uploader

import (
	"path"
	"strings"
)

// defaultMediaType is of all files whose extension says nothing.
const defaultMediaType = "application/octet-stream"

// mediaTypes has the media type of each extension. It is a table of our own so
// that a push is the same object whatever host it comes from.
var mediaTypes = map[string]string{
	".asdf": "application/x-asdf", ".avro": "application/vnd.apache.avro", ".bmp": "image/bmp", ".bz2": "application/x-bzip2",
	".css": "text/css", ".csv": "text/csv", ".ecsv": "text/csv",
	".fit": "image/fits", ".fits": "image/fits", ".fts": "image/fits", ".fz": "image/fits", // fpack's: still FITS
	".gif": "image/gif", ".gz": "application/gzip", ".h5": "application/x-hdf5", ".hdf5": "application/x-hdf5", ".htm": "text/html",
	".html": "text/html", ".jpeg": "image/jpeg", ".jpg": "image/jpeg", ".js": "text/javascript", ".json": "application/json",
	".jsonl": "application/x-ndjson", ".log": "text/plain", ".md": "text/markdown", ".mp3": "audio/mpeg", ".mp4": "video/mp4",
	".nc": "application/x-netcdf", ".ndjson": "application/x-ndjson", ".npy": "application/x-npy", ".npz": "application/x-npz",
	".parquet": "application/vnd.apache.parquet", ".pdf": "application/pdf", ".png": "image/png", ".svg": "image/svg+xml",
	".tar": "application/x-tar", ".tgz": "application/gzip", ".tif": "image/tiff", ".tiff": "image/tiff", ".tsv": "text/tab-separated-values",
	".txt": "text/plain", ".vot": "application/x-votable+xml", ".wav": "audio/wav", ".webp": "image/webp", ".xml": "application/xml",
	".xz": "application/x-xz", ".yaml": "application/yaml", ".yml": "application/yaml", ".zip": "application/zip", ".zst": "application/zstd",
}

// mediaType returns the media type of an object by the extension of its key, or
// by that of the file where the key's says nothing.
func mediaType(key, file string) string {
	for _, name := range []string{key, file} {
		if t := mediaTypes[strings.ToLower(path.Ext(name))]; t != "" {
			return t
		}
	}
	return defaultMediaType
}
