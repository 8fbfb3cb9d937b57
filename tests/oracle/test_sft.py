"""The fine-tuning loss against transformers, TRL (trainer and collator), torchtune and verl."""

import pytest
import torch

from llmref.functional.sft import (
    pack_sequences,
    packed_attention_mask,
    response_mask,
    sequence_logprob,
    sft_loss,
)
from tests.tensors import generator

TOPIC = "functional/sft"
V = 10
PAD, EOS = 0, 1
IGNORED = -100
LABELS = "the batch holds unshifted labels, -100 where nothing counts"


def batch(B=3, T=6):
    g = generator()
    logits = torch.randn(B, T, V, dtype=torch.float64, generator=g)
    tokens = torch.randint(2, V, (B, T), generator=g)
    mask = response_mask(torch.tensor([2, 1, 4]), torch.tensor([6, 5, 6]), T)
    return logits, tokens, mask


def labels_of(tokens, mask):
    return tokens.masked_fill(~mask, IGNORED)


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture
def tokenizer(offline):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", *"abcdefgh"]
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=EOS,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).double()


EXAMPLES = [
    {"prompt": "a b c", "completion": " d e"},
    {"prompt": "a", "completion": " f g h c"},
    {"prompt": "e f", "completion": " b"},
]
PROMPTS, LENGTHS = torch.tensor([3, 1, 2]), torch.tensor([6, 6, 4])  # EOS appended


@pytest.fixture
def trainer(tokenizer, tmp_path):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    def build(**options):
        return SFTTrainer(
            llama(),
            args=SFTConfig(
                output_dir=str(tmp_path),
                use_cpu=True,
                bf16=False,
                report_to="none",
                gradient_checkpointing=False,
                per_device_train_batch_size=3,
                disable_tqdm=True,
                **options,
            ),
            train_dataset=Dataset.from_list(EXAMPLES),
            processing_class=tokenizer,
        )

    return build


def collate(trainer):
    data = trainer.train_dataset
    return trainer.data_collator([data[i] for i in range(len(data))])


@pytest.mark.parametrize("items", [None, 40])
def test_value_and_gradient_equal_the_causal_loss_of_transformers(agreement, items):
    from transformers.loss.loss_utils import ForCausalLMLoss

    logits, tokens, mask = batch()
    logits.requires_grad_()
    ours = sft_loss(logits, tokens, mask, denom=items, agg="token-mean")
    theirs = ForCausalLMLoss(logits, labels_of(tokens, mask), V, num_items_in_batch=items)
    how = "labels unshifted, the shift is inside; float32; num_items_in_batch is denom"
    agreement("sft_loss", "transformers", ours, theirs, atol=1e-6, convention=how)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    agreement("sft_loss, gradient", "transformers", *gradients, atol=1e-6, convention="float32")


def test_all_ignored_is_nan_in_transformers_and_zero_with_a_count():
    from transformers.loss.loss_utils import ForCausalLMLoss

    logits, tokens, _ = batch()
    nothing = torch.full_like(tokens, IGNORED)
    assert ForCausalLMLoss(logits, nothing, V).isnan()
    assert ForCausalLMLoss(logits, nothing, V, num_items_in_batch=7) == 0


def test_labels_of_the_trl_trainer_are_the_response_mask(agreement, trainer):
    inputs = collate(trainer())
    tokens, mask = inputs["input_ids"], response_mask(PROMPTS, LENGTHS, 6)
    ours = labels_of(tokens, mask)
    agreement("response_mask", "trl", ours, inputs["labels"], atol=0, convention=LABELS)
    assert (tokens[torch.arange(3), LENGTHS - 1] == EOS).all()
    assert mask[torch.arange(3), LENGTHS - 1].all()


def test_the_collator_of_trl_masks_padding_and_nothing_else():
    """It takes ready labels; a completion mask given to it is not looked at."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = [{"input_ids": [5, 0, 1], "completion_mask": [0, 1, 1]}, {"input_ids": [6, 1]}]
    labels = DataCollatorForLanguageModeling(pad_token_id=PAD)(rows)["labels"]
    assert labels.tolist() == [[5, 0, 1], [6, 1, IGNORED]]


def test_loss_of_the_trl_trainer(agreement, trainer):
    sft = trainer()
    inputs = collate(sft)
    tokens, mask = inputs["input_ids"], response_mask(PROMPTS, LENGTHS, 6)
    logits = sft.model(tokens, attention_mask=inputs["attention_mask"]).logits
    for count in (None, 40):
        ours = sft_loss(logits, tokens, mask, denom=count, agg="token-mean")
        theirs = sft.compute_loss(sft.model, dict(inputs), num_items_in_batch=count)
        how = "token mean; num_items_in_batch is denom; float32"
        agreement("sft_loss, SFTTrainer", "trl", ours, theirs, atol=2e-6, convention=how)


def test_the_trainer_counts_shifted_labels_over_all_micro_batches(agreement, trainer):
    sft = trainer(completion_only_loss=False)
    inputs = collate(sft)
    theirs = sft._get_num_items_in_batch([inputs, inputs], torch.device("cpu"))
    mask = response_mask(torch.zeros(3, dtype=torch.long), LENGTHS, 6)
    ours = 2 * mask[:, 1:].sum()
    how = "first tokens are not counted"
    agreement("denom over two micro-batches", "transformers", ours, theirs, atol=0, convention=how)
    assert 2 * mask.sum() == theirs + 6


def test_a_batch_without_a_target_is_zero_in_trl(trainer):
    sft = trainer()
    inputs = collate(sft)
    inputs["labels"] = torch.full_like(inputs["labels"], IGNORED)
    assert sft.compute_loss(sft.model, inputs) == 0


def test_packing_in_trl_equals_packing_here_and_separate_rows(agreement, trainer):
    sft = trainer(packing=True, max_length=10, packing_strategy="bfd")
    inputs = collate(sft)  # one row: every document, whatever the bin
    theirs = sft.compute_loss(sft.model, dict(inputs))
    rows = collate(trainer())["input_ids"]
    mask = response_mask(PROMPTS, LENGTHS, 6)
    apart = sft_loss(sft.model(rows).logits, rows, mask, agg="token-mean")
    docs = [row[:n] for row, n in zip(rows, LENGTHS, strict=True)]
    packed = pack_sequences(docs, [m[:n] for m, n in zip(mask, LENGTHS, strict=True)], 10, PAD)
    logits = sft.model(
        packed.tokens,
        attention_mask=packed_attention_mask(packed.segment_ids),
        position_ids=packed.position_ids,
        use_cache=False,
    ).logits
    together = sft_loss(logits, packed.tokens, packed.mask, agg="token-mean")
    assert len(packed.tokens) == 2
    assert inputs["input_ids"].shape == (1, 16)
    assert abs(together - apart) < 1e-12
    how = "padding-free: all bins in one row, positions restart"
    agreement("sft_loss, packed", "trl", together, theirs, atol=2e-6, convention=how)


def test_rows_of_a_pack_are_those_of_trl(agreement):
    from datasets import Dataset
    from trl import pack_dataset

    lengths = [5, 2, 7, 1, 4, 6, 3, 5]
    docs = [torch.full((n,), i + 1) for i, n in enumerate(lengths)]
    ours = pack_sequences(docs, [torch.ones_like(d) for d in docs], 9, PAD).tokens
    data = Dataset.from_dict({"input_ids": [d.tolist() for d in docs]})
    theirs = pack_dataset(data, seq_length=9, strategy="bfd")["input_ids"]
    fill = [sorted(row.count_nonzero().item() for row in ours), sorted(map(len, theirs))]
    assert sum(map(len, theirs)) == sum(lengths)
    how = "best fit decreasing; every document fits into a row"
    tensors = [torch.tensor(x) for x in fill]
    agreement("pack_sequences, tokens a row", "trl", *tensors, atol=0, convention=how)


def test_packed_labels_and_positions_are_those_of_the_collators(agreement):
    from transformers import DataCollatorWithFlattening
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    docs = [[3, 1, 4, 1], [5, 9], [2, 6, 5]]
    tensors = [torch.tensor(d) for d in docs]
    packed = pack_sequences(tensors, [torch.ones_like(d) for d in tensors], 9, PAD)
    ours = labels_of(packed.tokens, packed.mask)
    rows = [{"input_ids": d} for d in docs]
    collators = {
        "trl": DataCollatorForLanguageModeling(pad_token_id=PAD, padding_free=True),
        "transformers": DataCollatorWithFlattening(return_tensors="pt"),
    }
    for library, collator in collators.items():
        theirs = collator(rows)
        how = "the first label of each document is -100"
        labels, positions = theirs["labels"], theirs["position_ids"]
        agreement("packed labels", library, ours, labels, atol=0, convention=how)
        how = "restart at 0"
        ours_at = packed.position_ids
        agreement("packed positions", library, ours_at, positions, atol=0, convention=how)


def test_packed_attention_is_what_transformers_derives_from_the_positions(agreement):
    from transformers.masking_utils import create_causal_mask

    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2]])

    def mask(attention_mask):
        return create_causal_mask(
            config=llama().config,
            inputs_embeds=torch.zeros(1, 9, 16),
            attention_mask=attention_mask,
            past_key_values=None,
            position_ids=positions,
        )

    theirs = mask(None)
    assert mask(torch.ones(1, 9, dtype=torch.long)) is None  # plain causal attention
    how = "only if attention_mask is None; with one, documents read each other"
    ours = packed_attention_mask(segments)
    agreement("packed_attention_mask", "transformers", ours, theirs, atol=0, convention=how)


@pytest.mark.usefixtures("torchtune_imports")
def test_packed_attention_equals_torchtune(agreement):
    from torchtune.modules.attention_utils import create_block_causal_mask

    ours = packed_attention_mask(torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 1, -1]]))
    theirs = create_block_causal_mask([torch.tensor([3, 2, 1]), torch.tensor([1, 4, 1])])
    how = "padding is a document of its own"
    agreement("packed_attention_mask", "torchtune", ours[:, 0], theirs, atol=0, convention=how)


@pytest.mark.usefixtures("torchtune_imports")
def test_torchtune_trains_the_first_token_of_a_packed_document():
    """Its label is kept, so the last token of the document before predicts it."""
    from torchtune.datasets import PackedDataset

    documents = [{"tokens": d, "labels": list(d)} for d in ([3, 1, 4], [5, 9])]
    pack = PackedDataset(documents, max_seq_len=6, padding_idx=PAD)[0]
    assert pack["labels"].tolist() == [3, 1, 4, 5, 9, IGNORED]


@pytest.mark.usefixtures("torchtune_imports")
def test_loss_equals_the_chunked_loss_of_torchtune(agreement):
    from torchtune.modules.loss import CEWithChunkedOutputLoss

    logits, tokens, mask = batch(T=6)
    labels = torch.nn.functional.pad(labels_of(tokens, mask)[:, 1:], (0, 1), value=IGNORED)
    chunks = list(logits.chunk(3, dim=1))
    theirs = CEWithChunkedOutputLoss(num_output_chunks=3)(chunks, labels)
    how = "the recipe shifts the labels; float32"
    ours = sft_loss(logits, tokens, mask, agg="token-mean")
    agreement("sft_loss", "torchtune", ours, theirs, atol=1e-6, convention=how)


@pytest.mark.usefixtures("torchtune_imports")
def test_sequence_logprob_equals_torchtune_and_verl(agreement, stand_in):
    stand_in("ray")
    from torchtune.rlhf import get_batch_log_probs
    from verl.utils.torch_functional import logprobs_from_logits

    logits, tokens, mask = batch()
    ours = sequence_logprob(logits, tokens, mask)
    theirs = get_batch_log_probs(logits, labels_of(tokens, mask))
    how = "sum over counted tokens, shift inside"
    agreement("sequence_logprob", "torchtune", ours, theirs, atol=1e-12, convention=how)
    each = logprobs_from_logits(logits[:, :-1], tokens[:, 1:])
    how = "given logits and tokens that are shifted already"
    theirs = (each * mask[:, 1:]).sum(-1)
    agreement("sequence_logprob", "verl", ours, theirs, atol=1e-12, convention=how)


def test_ignoring_the_id_of_the_padding_drops_every_eos_that_shares_it(tokenizer):
    """The language-modelling collator of transformers masks by id: with pad = eos nothing stops."""
    from transformers import DataCollatorForLanguageModeling

    tokenizer.pad_token = "<eos>"
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    labels = collator([{"input_ids": [5, 6, EOS]}, {"input_ids": [7, EOS]}])["labels"]
    assert labels.tolist() == [[5, 6, IGNORED], [7, IGNORED, IGNORED]]
