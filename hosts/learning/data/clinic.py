"""The words of the generated clinic: eight departments of six diseases, and 160 findings, twenty to a department."""

DISEASES: dict[str, tuple[str, ...]] = {
    "cardiology": (
        "myocardial infarction", "heart failure", "atrial fibrillation", "aortic stenosis", "pericarditis",
        "endocarditis",
    ),
    "neurology": (
        "ischaemic stroke", "migraine", "epilepsy", "multiple sclerosis", "Parkinson disease", "meningitis",
    ),
    "pulmonology": (
        "pneumonia", "asthma", "COPD", "pulmonary embolism", "tuberculosis", "pulmonary fibrosis",
    ),
    "gastroenterology": (
        "appendicitis", "Crohn disease", "peptic ulcer", "cirrhosis", "pancreatitis", "cholecystitis",
    ),
    "nephrology": (
        "acute kidney injury", "nephrotic syndrome", "pyelonephritis", "kidney stones", "glomerulonephritis",
        "polycystic kidneys",
    ),
    "endocrinology": (
        "diabetic ketoacidosis", "hyperthyroidism", "hypothyroidism", "Cushing syndrome", "Addison disease",
        "acromegaly",
    ),
    "rheumatology": (
        "rheumatoid arthritis", "gout", "lupus", "ankylosing spondylitis", "vasculitis", "polymyalgia rheumatica",
    ),
    "dermatology": (
        "psoriasis", "atopic eczema", "melanoma", "cellulitis", "shingles", "urticaria",
    ),
}  # fmt: skip

FINDINGS: dict[str, tuple[str, ...]] = {
    "cardiology": (
        "chest pain", "pain to left arm", "palpitations", "exertional dyspnoea", "orthopnoea", "ankle swelling",
        "raised jugular pressure", "ST elevation", "raised troponin", "irregular pulse", "systolic murmur",
        "diastolic murmur", "pericardial rub", "third heart sound", "raised BNP", "low ejection fraction",
        "exertional syncope", "splinter haemorrhages", "slow rising pulse", "vegetation on valve",
    ),
    "neurology": (
        "facial droop", "arm weakness", "slurred speech", "throbbing headache", "visual aura", "photophobia",
        "neck stiffness", "tonic-clonic seizure", "tongue biting", "post-ictal confusion", "optic neuritis",
        "limb numbness", "rest tremor", "cogwheel rigidity", "shuffling gait", "brisk reflexes",
        "white matter lesions", "double vision", "vertigo", "cells in spinal fluid",
    ),
    "pulmonology": (
        "productive cough", "dry cough", "wheeze", "haemoptysis", "pleuritic pain", "night sweats",
        "lobar consolidation", "barrel chest", "low oxygen saturation", "fine crackles", "reduced peak flow",
        "finger clubbing", "apical cavity", "hyperinflated lungs", "pack- year history", "sudden dyspnoea",
        "raised D-dimer", "ground glass shadows", "nocturnal cough", "positive sputum smear",
    ),
    "gastroenterology": (
        "right iliac pain", "rebound tenderness", "bloody diarrhoea", "epigastric pain", "jaundice", "ascites",
        "spider naevi", "raised lipase", "Murphy sign", "melaena", "vomiting", "pain after meals", "mouth ulcers",
        "perianal fistula", "pain through to back", "raised bilirubin", "low albumin", "gallstones on ultrasound",
        "positive Helicobacter test", "weight loss",
    ),
    "nephrology": (
        "low urine output", "raised creatinine", "frothy urine", "heavy proteinuria", "loin pain",
        "loin to groin pain", "haematuria", "red cell casts", "raised potassium", "periorbital swelling", "dysuria",
        "rigors", "enlarged kidneys", "liver cysts", "high blood pressure", "metabolic acidosis",
        "white cells in urine", "family kidney disease", "urinary frequency", "stone on CT",
    ),
    "endocrinology": (
        "polyuria", "thirst", "ketones in urine", "raised glucose", "deep sighing breath", "heat intolerance",
        "goitre", "fine tremor", "cold intolerance", "slow reflexes", "weight gain", "moon face", "purple striae",
        "skin pigmentation", "postural faintness", "low sodium", "large hands", "coarse features", "suppressed TSH",
        "raised TSH",
    ),
    "rheumatology": (
        "morning stiffness", "swollen knuckles", "hot big toe", "raised urate", "malar rash", "low complement",
        "back pain at night", "reduced spine flexion", "HLA-B27 positive", "shoulder girdle pain", "raised ESR",
        "jaw claudication", "purpuric rash", "foot drop", "rheumatoid factor", "tophi", "antinuclear antibodies",
        "sacroiliitis", "painless oral ulcers", "scalp tenderness",
    ),
    "dermatology": (
        "silvery plaques", "nail pitting", "flexural itch", "dry skin", "changing mole", "irregular border",
        "spreading redness", "warm skin", "dermatomal blisters", "burning pain", "wheals", "lip swelling",
        "scalp scaling", "family atopy", "bleeding mole", "skin lymph nodes", "tender shin", "tingling before rash",
        "itch after food", "new drug taken",
    ),
}  # fmt: skip
