//! What the attributes of an OME-Zarr image say: its full resolution, axes, channels and pixel size.
//!
//! The `multiscales` and `omero` of an image enter (NGFF 0.1 to 0.5), an [`OmeImage`] leaves. What fails: an image without
//! multiscales, or without height and width as its last axes.

use serde_json::Value;

use super::facts::micrometres;

/// An image of a well.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OmeImage {
    /// The folder of the array of full resolution, below the image's.
    pub(super) array: String,
    /// One letter for each axis before height and width, as far as the image names them: `t`, `c`, `z`.
    axes: Option<Vec<char>>,
    /// Width and height of a pixel in micrometres.
    pub(super) pixel_size_um: Option<(f64, f64)>,
    /// Names of channels; `None` for those without one. Empty where the names do not tell channels apart.
    pub(super) labels: Vec<Option<String>>,
}

impl OmeImage {
    /// Of the attributes of an image.
    ///
    /// # Errors
    /// What is not there, in words.
    pub(super) fn parse(attributes: &Value) -> Result<Self, String> {
        let scales = &attributes["multiscales"][0];
        let array = scales["datasets"][0]["path"]
            .as_str()
            .map(|path| path.trim_matches('/'));
        let array = array
            .filter(|path| is_below(path))
            .ok_or("the image has no multiscales with a dataset")?;
        let axes = scales["axes"].as_array().map(|axes| {
            let letter = |axis: &Value| {
                let name = axis["name"].as_str().or_else(|| axis.as_str());
                name.and_then(|name| name.chars().next())
                    .map_or('?', |letter| letter.to_ascii_lowercase())
            };
            axes.iter().map(letter).collect::<Vec<char>>()
        });
        let axes = match axes {
            Some(axes) => {
                let leading = axes.strip_suffix(&['y', 'x']).ok_or_else(|| {
                    let said: String = axes.iter().collect();
                    format!("its axes are {said}; the last two must be y and x")
                })?;
                Some(leading.to_vec())
            }
            None => None,
        };
        Ok(Self {
            array: array.to_owned(),
            axes,
            pixel_size_um: pixel_size(scales),
            labels: labels(&attributes["omero"]),
        })
    }

    /// The letters of the axes before height and width of an array that has `count` of them. Versions 0.1 and 0.2 name none:
    /// their images have all of `tczyx`.
    ///
    /// # Errors
    /// Another number of axes than the image has.
    pub(super) fn leading(&self, count: usize) -> Result<Vec<char>, String> {
        const ALL: [char; 3] = ['t', 'c', 'z'];
        match &self.axes {
            Some(axes) if axes.len() == count => Ok(axes.clone()),
            Some(axes) => Err(format!(
                "the image has {} axes, and its array {}",
                axes.len() + 2,
                count + 2
            )),
            None => ALL
                .len()
                .checked_sub(count)
                .and_then(|from| ALL.get(from..))
                .map(<[char]>::to_vec)
                .ok_or_else(|| format!("the image names no axes, and its array has {}", count + 2)),
        }
    }
}

/// Whether a path leads to something below the folder it stands in.
pub(super) fn is_below(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Width and height of a pixel of the first dataset: its own scale times that of all.
fn pixel_size(scales: &Value) -> Option<(f64, f64)> {
    let axes = scales["axes"].as_array()?;
    let axis = |back: usize| {
        let at = axes.len().checked_sub(back)?;
        let factor = |transforms: &Value| {
            let transforms = transforms.as_array()?;
            let scale = transforms.iter().find(|transform| transform["type"] == "scale")?;
            scale["scale"][at].as_f64()
        };
        let own = factor(&scales["datasets"][0]["coordinateTransformations"])?;
        let all = factor(&scales["coordinateTransformations"]).unwrap_or(1.0);
        // A scale without a unit counts pixels.
        let unit = axes.get(at)?["unit"].as_str()?;
        micrometres(&(own * all).to_string(), Some(unit))
    };
    axis(1).zip(axis(2))
}

/// The names of channels; none where two have the same.
fn labels(omero: &Value) -> Vec<Option<String>> {
    let channels = omero["channels"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let label = |channel: &Value| {
        let name = channel["label"].as_str().map(str::trim);
        name.filter(|name| !name.is_empty()).map(str::to_owned)
    };
    let labels: Vec<Option<String>> = channels.iter().map(label).collect();
    let mut named: Vec<&String> = labels.iter().flatten().collect();
    let count = named.len();
    named.sort();
    named.dedup();
    if named.len() < count { Vec::new() } else { labels }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_name_axes_each_in_their_way() {
        let image = |axes: Value| {
            OmeImage::parse(&json!({"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}))
        };
        let named = image(json!([{"name": "c"}, {"name": "z"}, {"name": "y"}, {"name": "x"}])).unwrap();
        assert_eq!(named.leading(2).unwrap(), ['c', 'z']);
        assert_eq!(
            named.leading(3).unwrap_err(),
            "the image has 4 axes, and its array 5"
        );
        assert_eq!(image(json!(["t", "y", "x"])).unwrap().leading(1).unwrap(), ['t']);
        assert_eq!(
            image(json!(["x", "y"])).unwrap_err(),
            "its axes are xy; the last two must be y and x"
        );
        let first = OmeImage::parse(&json!({"multiscales": [{"datasets": [{"path": "0/"}]}]})).unwrap();
        assert_eq!(
            (first.array.as_str(), first.leading(3).unwrap()),
            ("0", vec!['t', 'c', 'z'])
        );
        assert!(first.leading(4).is_err());
        for path in ["", "..", "a/../b", "/"] {
            let said = OmeImage::parse(&json!({"multiscales": [{"datasets": [{"path": path}]}]}));
            assert!(said.unwrap_err().contains("no multiscales"), "{path}");
        }
    }

    #[test]
    fn pixel_sizes_are_products_of_scales_in_the_unit_of_the_axis() {
        let image = json!({"multiscales": [{
            "axes": [{"name": "c"}, {"name": "y", "unit": "nanometer"}, {"name": "x", "unit": "micrometer"}],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 325.0, 0.25]}]}],
            "coordinateTransformations": [{"type": "scale", "scale": [1, 2, 2]}],
        }]});
        assert_eq!(OmeImage::parse(&image).unwrap().pixel_size_um, Some((0.5, 0.65)));
    }

    #[test]
    fn labels_that_are_not_different_are_none() {
        let of = |labels: Value| super::labels(&json!({"channels": labels}));
        assert_eq!(
            of(json!([{"label": "DAPI"}, {"label": " "}])),
            [Some("DAPI".to_owned()), None]
        );
        assert_eq!(of(json!([{"label": "a"}, {"label": "a"}])), []);
    }
}
