//! `wellspring models fit-head`: a whitening or a linear probe on the control wells of a run or of tables.
//!
//! A run in the stream, or tables with a screen, enter; a model of the folder leaves, with a card and weights of its own,
//! that embeds with the network whose features they are. Fails where the run is not complete, the features are not those of
//! the network here, or the wells do not suffice for a fit.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use wellspring::events::ModelIdentity;
use wellspring::heads::{self, Controls, HeadsError, Kind, Request, TableKeys};
use wellspring::identity::same_model;
use wellspring::model_cards;
use wellspring::model_store::weights_path;
use wellspring::plan::read_plate_map;
use wellspring::replay;
use wellspring::results::{FeatureColumns, ProfileFile};
use wellspring_models::{Architecture, HeadMap, ModelCard};
use wellspring_workloads::head::{
    FEWEST_WELLS, FitLimits, ProbeLoss, ProbeSettings, Shrinkage, WhitenMethod, WhitenSettings,
};
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::profile::WellProfile;

use super::super::common::{ClientArgs, RuntimeArgs, read_screen, runtime};
use super::super::compare::Inputs;
use super::super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring models fit-head white --run rescue-pilot-1a2b3c4d --kafka localhost:9092 --leave-out-constant\n  \
                  wellspring models fit-head disease-probe --kind probe --features out/demo/results/features.parquet --screen out/demo/plates/screen.toml --leave-out-constant\n  \
                  wellspring models fit-head lines --kind probe --classes cell_line --run rescue-pilot-1a2b3c4d --kafka localhost:9092\n\n\
                  The head is a model like any other afterwards: [model] name = \"white\" in a screen file. It takes the \
                  channels it was fitted on, by name and in that order. Some features of most networks are 0 in all \
                  control wells: --leave-out-constant gives them no weight."
)]
pub(crate) struct Args {
    /// What to call it.
    name: String,
    /// whitening (takes out what varies among the controls), probe (a score for each class of controls, by ridge regression) or
    /// logistic (the same by logistic regression: a log probability, but for a number that all scores of a well have in common).
    #[arg(long, default_value = "whitening", value_parser = ["whitening", "probe", "logistic"])]
    kind: String,
    /// The run whose features are read from Kafka; it must be complete.
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "features",
        conflicts_with = "features"
    )]
    run: Option<String>,
    /// Kafka's bootstrap servers, host:port[,host:port], for --run.
    #[arg(long, value_name = "BOOTSTRAP", env = "WELLSPRING_KAFKA")]
    kafka: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
    /// Feature or profile tables as `wellspring run` writes them: Parquet, CSV or TSV.
    #[arg(long, visible_alias = "profiles", value_name = "FILE", num_args = 1.., requires = "screen")]
    features: Vec<PathBuf>,
    /// The screen file that says which wells are controls, for --features. A run has its own.
    #[arg(long, value_name = "SCREEN.toml", conflicts_with = "run")]
    screen: Option<PathBuf>,
    /// Take the tables though they say that they were made for another screen, or for SCREEN.toml before it was changed.
    #[arg(long, requires = "features")]
    other_screen: bool,
    /// What each well was given. Default: the screen's plate map, else the tables' own columns.
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    platemap: Option<PathBuf>,
    /// Take what each well was given from the tables' own columns, and from those of FILE; see `wellspring compare`.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "", conflicts_with = "run")]
    metadata: Option<String>,
    /// Of which network the features are taken, where the screen has several: the name that its columns begin with. Default: that of
    /// [model]. Columns of others are left out.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Which controls: reference, phenotype or all. Default: reference for a whitening, all for a probe.
    #[arg(long, value_parser = ["reference", "phenotype", "all"])]
    wells: Option<String>,
    /// For a probe: columns of the plate map whose cells name a well's class. Default: reference, and each disease model.
    #[arg(long, value_name = "COLUMN,..", value_delimiter = ',')]
    classes: Vec<String>,
    /// For a whitening: pca, zca, pca-cor or zca-cor; -cor standardises the features first, by their standard deviation
    /// or the median of all, whichever is larger. Default: zca.
    #[arg(long)]
    method: Option<WhitenMethod>,
    /// For a whitening: ledoit-wolf, or how far the covariance is moved to a multiple of the identity, 0 to 1.
    /// Default: ledoit-wolf.
    #[arg(long, value_parser = parse_shrinkage)]
    shrinkage: Option<Shrinkage>,
    /// For a pca whitening: components kept, at most as many as the wells span. Default: all of those.
    #[arg(long, value_name = "N")]
    components: Option<usize>,
    /// The fewest control wells; for a probe of each class.
    #[arg(long, value_name = "N", default_value_t = FEWEST_WELLS)]
    fewest_wells: usize,
    /// Give features that do not vary among the wells no weight. Otherwise they are an error.
    #[arg(long)]
    leave_out_constant: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

fn parse_shrinkage(word: &str) -> Result<Shrinkage, String> {
    match word.parse() {
        _ if word == "ledoit-wolf" => Ok(Shrinkage::LedoitWolf),
        Ok(delta) => Ok(Shrinkage::Fixed(delta)),
        Err(_) => Err("it must be ledoit-wolf, or a number from 0 to 1".to_owned()),
    }
}

/// What a head is fitted on.
struct Found {
    base: std::sync::Arc<ModelCard>,
    channels: usize,
    channel_names: Vec<String>,
    from: String,
    profiles: Vec<WellProfile>,
    map: Option<PlateMap>,
    left_out: Vec<String>,
}

pub(super) fn execute(folder: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    // Not only after the features are read.
    model_cards::check_free(folder, &args.name)?;
    let kind = args.kind()?;
    let controls = match (args.wells.as_deref(), &kind) {
        (Some("reference"), _) | (None, Kind::Whitening(_)) => Controls::Reference,
        (Some("phenotype"), _) => Controls::Phenotype,
        _ => Controls::All,
    };
    let found = match &args.run {
        Some(run) => args.of_run(folder, run, controls)?,
        None => args.of_tables(folder, controls)?,
    };
    for text in &found.left_out {
        say::note(format_args!("note: {text}"));
    }
    let request = Request {
        name: &args.name,
        base: &found.base,
        channels: found.channels,
        channel_names: found.channel_names,
        from: found.from,
        controls,
        kind,
    };
    let (draft, weights) = heads::fit(request, &found.profiles, found.map.as_ref())?;
    let engine = args.runtime.engine_of(&found.base.architecture)?;
    let card = model_cards::keep(folder, draft, &weights, engine)?;
    say::line(format_args!(
        "{} {} is ready: {}",
        card.name,
        card.version,
        weights_path(folder, &card).display()
    ));
    say::line(described(&card));
    Ok(ExitCode::SUCCESS)
}

/// How a head came about, in a line.
fn described(card: &ModelCard) -> String {
    let Architecture::Head(shape) = &card.architecture else {
        return String::new();
    };
    let fit = &shape.fit;
    let how = match &shape.map {
        HeadMap::Classes { names } => format!(
            "scores of {}; {:.3} of held-out wells found again, mean over classes ({})",
            names.join(", "),
            fit.balanced_accuracy.unwrap_or(f64::NAN),
            fit.held_out.as_deref().unwrap_or_default()
        ),
        _ => format!(
            "{}, {} values, shrinkage {:.4}",
            fit.method,
            card.embedding_width,
            fit.shrinkage.unwrap_or(f64::NAN)
        ),
    };
    format!(
        "head on {} {}: {how}; {} {} of {} plates",
        shape.base.name, shape.base.version, fit.wells, fit.controls, fit.plates
    )
}

/// That networks beside the chosen one are left out, where there are such.
fn beside(names: &[String], chosen: usize) -> Option<String> {
    let others = names.iter().enumerate().filter(|(at, _)| *at != chosen);
    let others: Vec<&str> = others.map(|(_, name)| name.as_str()).collect();
    (!others.is_empty()).then(|| {
        format!(
            "the head is fitted on the features of {}; those of {} are left out (--network chooses)",
            names[chosen],
            others.join(", ")
        )
    })
}

impl Args {
    /// Refuses a table that is given twice: each of its wells would count twice.
    fn check_tables(&self) -> anyhow::Result<()> {
        let mut seen = std::collections::BTreeSet::new();
        for table in &self.features {
            // One that is not there is told where it is read.
            let place = table.canonicalize().unwrap_or_else(|_| table.clone());
            if !seen.insert(place) {
                bail!(
                    "'{}' is given twice after --features: give each table once",
                    table.display()
                );
            }
        }
        Ok(())
    }

    fn kind(&self) -> anyhow::Result<Kind> {
        let limits = FitLimits {
            fewest_wells: self.fewest_wells,
            leave_out_constant: self.leave_out_constant,
        };
        let loss = match self.kind.as_str() {
            "probe" => Some(ProbeLoss::Squares),
            "logistic" => Some(ProbeLoss::Logistic),
            _ => None,
        };
        if let Some(loss) = loss {
            let whitens = [
                ("--method", self.method.is_some()),
                ("--shrinkage", self.shrinkage.is_some()),
                ("--components", self.components.is_some()),
            ];
            if let Some((option, _)) = whitens.iter().find(|(_, given)| *given) {
                bail!(
                    "{option} is for a whitening; a probe is a regression, with a value for each class and a ridge that \
                     held-out wells choose"
                );
            }
            return Ok(Kind::Probe {
                settings: ProbeSettings { limits, loss },
                columns: self.classes.clone(),
            });
        }
        if !self.classes.is_empty() {
            bail!("--classes is for --kind probe or logistic; a whitening takes all its wells as one");
        }
        Ok(Kind::Whitening(WhitenSettings {
            method: self.method.unwrap_or_default(),
            shrinkage: self.shrinkage.unwrap_or_default(),
            components: self.components,
            limits,
        }))
    }

    /// From the stream.
    fn of_run(&self, folder: &Path, run: &str, controls: Controls) -> anyhow::Result<Found> {
        let bootstrap = self.kafka.as_deref();
        let bootstrap = bootstrap.context("--run reads from Kafka: say where with --kafka")?;
        let kafka = self.client.settings(bootstrap)?;
        let (screen, model, mut collection) = replay::collected(&kafka, run, &std::env::temp_dir())?;
        let cards = model_cards::of_screen(folder, &screen)?;
        let names: Vec<String> = screen.all_networks().map(|network| network.name).collect();
        let chosen = match &self.network {
            None => 0,
            Some(name) => names.iter().position(|known| known == name).with_context(|| {
                format!(
                    "run '{run}' has no network '{name}': --network is one of {}",
                    names.join(", ")
                )
            })?,
        };
        let now = ModelIdentity::of(cards.iter().map(|card| &**card));
        same_model(&run.to_owned(), model.as_ref(), &now)?;
        let base = cards.get(chosen).context("a screen has a network")?.clone();
        let map = runtime()?.block_on(read_plate_map(&screen))?;
        let (profiles, mut left_out) =
            heads::run_profiles(&screen, &cards, chosen, &mut collection, &map, controls)?;
        left_out.extend(beside(&names, chosen));
        Ok(Found {
            base,
            channels: screen.images.channels.len(),
            channel_names: heads::channel_names(&screen),
            from: format!("run {run}"),
            profiles,
            map: Some(map),
            left_out,
        })
    }

    /// From files.
    fn of_tables(&self, folder: &Path, controls: Controls) -> anyhow::Result<Found> {
        let path = self.screen.clone().context("--features needs --screen")?;
        // As the run that made the tables had it, whatever plate map is given now.
        let screen = read_screen(&path)?;
        let digest = screen.hash();
        self.check_tables()?;
        let networks: Vec<_> = screen.all_networks().collect();
        // Of columns by several names those of one are recognised, and not always those of the first network.
        let first = (networks.len() > 1).then_some(&screen.model.name);
        let named = self.network.as_ref().or(first).map(String::as_str);
        let inputs = Inputs {
            features: self.features.clone(),
            screen: path.clone(),
            platemap: self.platemap.clone(),
            metadata: self.metadata.clone(),
            columns: named.map_or(String::new(), |name| format!("{name}_*")),
        };
        let scratch = tempfile::tempdir()?;
        let opened = inputs.open(inputs.screen()?, scratch.path())?;
        let features = opened.features();
        let family = match named {
            Some(name) => name,
            None => heads::family(features).with_context(|| {
                format!(
                    "the features of '{}' are not a network's: such are called NAME_0, NAME_1 and so on",
                    self.features[0].display()
                )
            })?,
        };
        // A step's columns have its own name; those that no network of the screen has are of the model so called.
        let chosen = networks.iter().position(|network| network.name == family);
        let model = chosen.map_or(family, |at| networks[at].model.as_str());
        let base = model_cards::find(folder, model)
            .context("a head stands on the network whose features the tables hold")?;
        let mut notes = Vec::new();
        if let Some(chosen) = chosen {
            let names: Vec<String> = networks.iter().map(|network| network.name.clone()).collect();
            notes.extend(beside(&names, chosen));
        }
        for table in &self.features {
            let file = ProfileFile::open(table, &FeatureColumns::from_patterns(Vec::new()), &[])?;
            let keys = TableKeys {
                model_sha256: file.key_value("wellspring.model_sha256"),
                screen_sha256: file.key_value("wellspring.screen_sha256"),
            };
            let screen = (!self.other_screen).then_some((path.as_path(), digest.as_str()));
            if !heads::check_table(&base, table, keys, screen)? {
                notes.push(format!(
                    "'{}' does not say which screen it is of; its features are taken for those of '{}'",
                    table.display(),
                    path.display()
                ));
            }
        }
        let channel_names = heads::channel_names(&opened.screen);
        if channel_names.is_empty() {
            notes.push(format!(
                "'{}' names no channels under [images], so the head will take any of that number, in any order",
                path.display()
            ));
        }
        let channels = Some(channel_names.len()).filter(|channels| *channels > 0);
        let (channels, columns) =
            heads::embedding_columns(&base, family, features, channels).map_err(|error| match error {
                HeadsError::Features { missing, .. } if opened.percent_missing(&missing).is_some() => {
                    let percent = opened.percent_missing(&missing).unwrap_or_default();
                    HeadsError::NoValues {
                        feature: missing,
                        percent,
                    }
                }
                other => other,
            })?;
        let (mut profiles, left_out, rows_left_out) = opened.profiles(|given| controls.has(given))?;
        notes.extend(left_out.iter().cloned());
        if rows_left_out > 0 {
            bail!(
                "{rows_left_out} rows of the tables cannot be used, and a model is not fitted on what is left:\n{}",
                left_out.join("\n")
            );
        }
        for profile in &mut profiles {
            let values = columns
                .iter()
                .map(|at| profile.values.get(*at).copied().unwrap_or(f32::NAN));
            profile.values = values.collect();
        }
        Ok(Found {
            base,
            channels,
            channel_names,
            // Names of files differ from machine to machine; the screen's hash does not.
            from: format!("tables of screen {}", wellspring::runs::run_id(&opened.screen)),
            profiles,
            map: opened.plate_map().cloned(),
            left_out: notes,
        })
    }
}
